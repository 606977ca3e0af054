"""The job that drives a build: its command line, and that it runs it."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.city import ROOT
from tests.drives import write_drive
from vladmap.pipeline.flex_template import command_words, drive, main
from vladmap.pipeline.launch import options_of


def test_the_build_s_jobs_have_the_project_the_places_and_the_account_of_the_template() -> None:
    options = options_of(
        [
            *("--runner=DataflowRunner", "--project=city", "--region=europe-west4"),
            *("--temp_location=gs://b/t", "--service_account_email=a@b", "--subnetwork=s"),
            *("--labels=team=map", "--labels=cost=1", "--machine_type=n1-standard-1"),
            *("--template_location=gs://b/job", "--job_name=drive"),
        ]
    )
    words = command_words(
        "build", "gs://b/photos", "gs://b/atlas", "image:1", "--near 7 --job_name 'a city'", options
    )
    assert words == [
        *("build", "--atlas", "gs://b/atlas", "--images", "gs://b/photos"),
        *("--runner=DataflowRunner", "--project=city", "--region=europe-west4"),
        *("--temp_location=gs://b/t", "--service_account_email=a@b", "--subnetwork=s"),
        *("--labels=team=map", "--labels=cost=1", "--sdk_container_image=image:1"),
        *("--near", "7", "--job_name", "a city"),
    ]


@pytest.mark.medium
def test_the_template_s_one_element_is_a_whole_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_drive(tmp_path / "drive", 3)
    with caplog.at_level(logging.INFO, "vladmap"):
        main(
            [
                *(f"--images={tmp_path / 'drive'}", f"--atlas={tmp_path / 'atlas'}"),
                *("--job=ingest", "--words=--shard-images 2", "--runner=FnApiRunner"),
            ]
        )
    assert pq.read_table(tmp_path / "atlas" / "images").num_rows == 3
    assert "3 images" in caplog.text


@pytest.mark.medium
def test_a_run_that_fails_fails_the_element_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"vladmap ingest ended with 2: .*no photographs there"):
        drive(["ingest", "--images", str(tmp_path), "--atlas", str(tmp_path / "atlas")])


@pytest.mark.medium
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_a_build_ends_with_the_worker_that_drives_it(tmp_path: Path) -> None:
    """Killed, the worker ends nothing itself; another one is given the same build."""
    held = tmp_path / "held"
    os.mkfifo(held)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n"
        "if sys.orig_argv[1:4] == ['-u', '-m', 'vladmap.jobs.main']:\n"
        f"    held = open({str(held)!r}, 'w')\n"
        "    print('begun', file=held, flush=True)\n"
        "    time.sleep(600)\n"
    )
    program = "from vladmap.pipeline.flex_template import drive; drive(['build'])"
    worker = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    descriptor = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        assert waiting.poll(120_000)
        assert os.read(descriptor, 100) == b"begun\n"
        worker.kill()
        worker.wait()
        assert waiting.poll(30_000), "the build goes on"
        assert os.read(descriptor, 100) == b"", "closed by its end alone"
    finally:
        worker.kill()
        os.close(descriptor)
