"""What a dry run says of the device, the runner, and the place of the atlas."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from vladmap.pipeline import launch
from vladmap.pipeline.engines.engine import ENGINES
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.readiness import Check, ready, room, writable
from vladmap.weights import devices

DATAFLOW = ["--runner=DataflowRunner", "--project=p", "--region=r", "--temp_location=gs://b/t"]


def bad(checks: list[Check]) -> list[str]:
    return [check.text for check in checks if not check.good]


def test_a_plain_build_on_this_machine_is_ready(tmp_path: Path) -> None:
    assert bad(ready(BuildOptions(atlas=str(tmp_path / "new")), (), 1e6)) == []


def test_a_gpu_that_is_not_there_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = BuildOptions(atlas=str(tmp_path), device="cuda")
    monkeypatch.setattr(devices, "gpu_names", list)
    assert "there is no GPU here" in bad(ready(options, (), 0.0))[0]
    monkeypatch.setattr(devices, "gpu_names", lambda: ["NVIDIA H100"])
    checks = ready(options, (), 0.0)
    assert bad(checks) == []
    assert "cuda: NVIDIA H100" in [check.text for check in checks]


def test_where_workers_are_elsewhere_their_gpu_is_not_looked_for_here() -> None:
    options = BuildOptions(images="gs://b/i", atlas="gs://b/a", device="cuda")
    checks = ready(options, [*DATAFLOW, "--sdk_container_image=x"], 0.0)
    assert any("not seen from here" in check.text for check in checks if check.about == "device")


def test_processes_of_an_engine_on_this_machine_are_no_workers_elsewhere() -> None:
    words = ["--runner=PortableRunner", *ENGINES["spark"].pipeline_words("local[2]")]
    assert launch.on_this_machine(words)
    assert launch.worker_count(words) == 1
    assert not launch.on_this_machine(["--runner=PortableRunner", "--environment_type=DOCKER"])
    assert launch.worker_count([*DATAFLOW, "--max_num_workers=50"]) == 50


def test_dataflow_is_told_what_it_lacks() -> None:
    options = BuildOptions(images="gs://b/i", atlas="gs://b/a")
    said = " ".join(bad(ready(options, ["--runner=DataflowRunner", "--project=p"], 0.0)))
    assert "Dataflow needs --region" in said
    assert "Dataflow needs --temp_location" in said
    assert "--project" not in said
    assert "installs torch as it starts" in said


def test_workers_elsewhere_must_see_a_folder_of_this_machine() -> None:
    options = BuildOptions(images="/data/photos", atlas="gs://b/a")
    said = bad(ready(options, [*DATAFLOW, "--sdk_container_image=x"], 0.0))
    assert any("--images /data/photos: every worker must see it" in text for text in said)
    assert not any("--atlas" in text and "must see" in text for text in said)


def test_a_job_server_is_asked_whether_it_answers(tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        words = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}"]
        checks = ready(BuildOptions(atlas=str(tmp_path)), words, 0.0)
        assert any("answers" in check.text and check.good for check in checks)
    checks = ready(BuildOptions(atlas=str(tmp_path)), words, 0.0)
    assert any("no job server answers" in text for text in bad(checks))
    words = ["--runner=PortableRunner", "--job_endpoint=nowhere"]
    assert any(
        "no job server answers at nowhere" in text
        for text in bad(ready(BuildOptions(atlas=str(tmp_path)), words, 0.0))
    )


def test_a_place_that_may_not_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file" in writable(str(tmp_path / "file" / "atlas")).text
    assert writable(str(tmp_path / "a" / "b" / "c")) == Check("atlas", f"{tmp_path} may be written")
    # root may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not writable(str(tmp_path / "a")).good


def test_a_disk_that_is_too_small_is_a_warning(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert room(str(tmp_path / "a" / "b"), free / 2).good
    short = room(str(tmp_path / "a" / "b"), 1000.0 * free)
    assert not short.good
    assert "too little" in short.text
