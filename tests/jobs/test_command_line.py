"""The command line: exit codes, clear lines, help."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.drives import write_drive
from vladmap.atlas.store import AtlasStore
from vladmap.console.progress import time_left
from vladmap.jobs.main import jobs, load, main
from vladmap.pipeline.beam_words import checked
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.stages import STAGES
from vladmap.schemas import VERSION


def build(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["build", *words])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--images", "nowhere", "--atlas", "{tmp}/a"], "does not exist"),
        (["--images", "{tmp}/empty", "--atlas", "{tmp}/a"], "no photographs"),
        (["--images", "{tmp}/drive", "--atlas", "/proc/atlas"], "cannot be written"),
        (["--images", "{tmp}/drive", "--atlas", "{tmp}/newer"], "schema version 99"),
        (["--images", "{tmp}/drive", "--atlas", "{tmp}/drive"], "no atlas"),
        (["--images", "{tmp}/no-uri.csv", "--atlas", "{tmp}/a"], "uri"),
        (["--atlas", "{tmp}/a"], "--images"),
        (["--images", "{tmp}/drive", "--atlas", "{tmp}/a", "--reach-m", "-1"], "--reach-m"),
        (
            ["--images", "{tmp}/drive", "--atlas", "{tmp}/a", "--config", "{tmp}/bad.yaml"],
            "tile-images",
        ),
        (["--images", "{tmp}/drive", "--atlas", "{tmp}/a", "--model", "netvlad"], "--checkpoint"),
        (
            [
                "--images",
                "{tmp}/drive",
                "--atlas",
                "{tmp}/a",
                "--model",
                "netvlad",
                "--checkpoint",
                "{tmp}/no-uri.csv",
            ],
            "no-uri.csv",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    write_drive(tmp_path / "drive", 2)
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "atlas.json").write_text(json.dumps({"schema_version": 99}))
    (tmp_path / "no-uri.csv").write_text("name,latitude\na.jpg,1\n")
    (tmp_path / "bad.yaml").write_text("tile-image: 40\n")
    code, err = build(capsys, *(word.format(tmp=tmp_path) for word in words))
    lines = [line for line in err.splitlines() if line.startswith("vladmap: ")]
    assert code == 2
    assert len(lines) == 1
    assert expected in lines[0]
    assert "Traceback" not in err


def test_a_dry_run_counts_images_and_bytes_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_drive(tmp_path / "drive", 3)
    size = sum(path.stat().st_size for path in (tmp_path / "drive").iterdir())
    words = ["build", "--images", str(tmp_path / "drive"), "--atlas", str(tmp_path / "atlas")]
    assert main([*words, "--dry-run", "--no-calibration"]) == 0
    output = capsys.readouterr().out
    assert f"3 images, {size / 1000:.1f} kB" in output
    assert not (tmp_path / "atlas").exists()


def test_help_and_the_version_wait_for_no_library() -> None:
    """Issue 19, 20: help took 4 seconds, most of them to import torch and Beam."""
    program = """
import sys
from vladmap.jobs.main import jobs, main
for words in [["--help"], ["--version"], *([job, "--help"] for job in jobs())]:
    try:
        main(words)
    except SystemExit as end:
        assert end.code == 0
slow = {"torch", "apache_beam", "pycolmap", "faiss", "pyarrow", "pandas", "scipy", "numpy"}
print(sorted(slow & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == "[]\n"


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """Issue 19, 20."""
    assert main(["--version"]) == 0
    with pytest.raises(SystemExit, match="0"):
        main(["build", "--version"])
    assert capsys.readouterr().out == f"vladmap {VERSION}\n" * 2


@pytest.mark.parametrize("job", list(jobs()))
def test_help_of_every_job_teaches(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([job, "--help"])
    assert stopped.value.code == 0
    assert f"vladmap {job}" in capsys.readouterr().out


def test_an_unknown_job_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["biuld"]) == 2
    assert "biuld" in capsys.readouterr().err


MISTYPED = [
    (["build", "--tile-imags", "300"], "unknown option --tile-imags; did you mean --tile-images?"),
    (["build", "--max-reject", "0.1"], "unknown option --max-reject; did you mean --max-reject-ra"),
    (["build", "--tile_images=300"], "unknown option --tile_images; did you mean --tile-images?"),
    (["build", "--rnner", "FnApiRunner"], "unknown option --rnner; did you mean --runner?"),
    (["build", "--region", "x", "--tmp_location=y"], "did you mean --temp_location?"),
    (["build", "a-second-folder"], "unexpected word 'a-second-folder'"),
    (["build", "--experiments=x", "a-second-folder"], "unexpected word 'a-second-folder'"),
    (["build", "--direct_num_workers", "two"], "--direct_num_workers: invalid int value: 'two'"),
    (["build", "-x"], "unknown option -x"),
    (["ingest", "--tile-images", "300"], "no option of `vladmap ingest`, but of reconstruct"),
    (["build", "--config", "{tmp}/beam.yaml"], "did you mean --region?"),
    (["build", "--runner", "FnApiRuner"], "no such runner; did you mean FnApiRunner?"),
    (["build", "--runner", "nowhere.Runner"], "No module named 'nowhere'"),
    (["check-map", "--atlas", "a", "--truht", "b"], "--truth"),
    (["sample", "city", "town"], "unexpected word 'town'"),
    (["sample", "city", "--imags", "3"], "unknown option --imags; did you mean --images?"),
    (["evaluate", "set", "--modle", "vlad"], "unknown option --modle; did you mean --model?"),
    (["compare", "set", "--metod=vlad"], "unknown option --metod; did you mean --method?"),
    (["models", "--verbos"], "unknown option --verbos"),
    (["train", "--data", "a", "--output", "b", "--epoch", "3"], "did you mean --epochs?"),
    (["biuld"], "no job is called 'biuld'; did you mean build?"),
    (["chek-map"], "did you mean check-map?"),
]


@pytest.mark.parametrize(("words", "expected"), MISTYPED)
def test_a_mistyped_word_is_refused_with_the_name_that_was_meant(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 20: it was passed over, and the build ran with the default."""
    write_drive(tmp_path / "drive", 2)
    (tmp_path / "beam.yaml").write_text("beam: [--regionn=europe-west1]\n")
    if words[0] in ("build", "ingest"):
        words = [*words, "--images", str(tmp_path / "drive"), "--atlas", str(tmp_path / "a")]
    try:
        code = main([word.format(tmp=tmp_path) for word in words])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    err = capsys.readouterr().err
    assert code == 2
    assert len(err.splitlines()) == 1
    assert expected in err
    assert not (tmp_path / "a").exists()


def test_beams_own_options_and_what_stands_after_two_dashes_go_to_beam() -> None:
    """Issue 19, 20: a job server of one's own may know options that Beam's classes do not."""
    words = ["--runner=FnApiRunner", "--experiments", "a", "--experiments=b", "--job_name", "c"]
    assert checked([*words, "--", "--of_my_server=1"]) == [*words, "--of_my_server=1"]
    assert checked(words) == words


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vladmap che", {"check-map"}),
        ("vladmap build --tile", {"--tile-images", "--tile-minutes"}),
        ("vladmap build --features ", {"sift", "xfeat"}),
        ("vladmap check-map --tr", {"--truth"}),
    ],
)
def test_a_shell_completes_jobs_options_and_choices(
    line: str, expected: set[str], tmp_path: Path
) -> None:
    """Issue 19, 20."""
    answer = tmp_path / "answer"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_IFS": "\n",
    }
    subprocess.run([sys.executable, "-m", "vladmap.jobs.main"], env=environment, check=True)
    assert expected <= {word.strip() for word in answer.read_text().splitlines()}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_names_the_command(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 20."""
    assert main(["completion", shell]) == 0
    assert "vladmap" in capsys.readouterr().out


def test_the_summary_is_one_json_object_for_scripts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 20: --json."""
    write_drive(tmp_path / "drive", 3)
    words = ["--images", str(tmp_path / "drive"), "--atlas", str(tmp_path / "a"), "--json", "-q"]
    assert main(["ingest", *words]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    outcome = json.loads(output.out)
    assert outcome["counts"]["images"] == 3
    assert [(each["stage"], each["elements"]) for each in outcome["stages"]] == [("ingest", 3)]
    assert main(["build", *words, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert "3 known" in " ".join(planned["work"])
    assert planned["estimate"]["images"] == 3
    assert "this atlas's last runs" in planned["estimate"]["rates"]["source"]


def test_each_stage_is_counted_and_the_rest_of_its_time_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 19, 20: stage n of N."""
    from vladmap.pipeline import build

    seen = []
    monkeypatch.setattr(build, "record", lambda run, name: None)
    monkeypatch.setattr(build, "require", lambda run, name: None)
    names = list(STAGES)[:3]
    for name in names:
        watched = replace(STAGES[name], work=lambda run: seen.append(run.stage))
        monkeypatch.setitem(STAGES, name, watched)
    atlas = AtlasStore.open(str(tmp_path / "a"), create=True)
    with caplog.at_level(logging.INFO, logger="vladmap"):
        build.run_stages(atlas, BuildOptions(), [], names)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert "stage 2 of 3: describe" in caplog.text
    cases = [(0, 10, 5.0), (1, 4, 20.0), (1, 11, 60.0), (1, 61, 180.0)]
    expected = ["", ", about 60 s left", ", about 10 min left", ", about 3.0 h left"]
    assert [time_left(*case) for case in cases] == expected


@pytest.mark.parametrize("job", [name for name in jobs() if name not in STAGES and name != "build"])
def test_every_number_of_a_job_has_a_range(job: str) -> None:
    """Issue 19, 21: a bare int takes -3 where there is no such thing; stages have ranges apart."""
    options = load(job).command_line()
    assert [action.dest for action in options._actions if action.type in (int, float)] == []


@pytest.mark.medium
@pytest.mark.parametrize("words", ["--help", "build --help"])
def test_help_whose_reader_has_gone_ends_without_a_traceback(words: str) -> None:
    """As in `vladmap --help | head -1`: the read end of the pipe is closed before it is written."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "vladmap.jobs.main", *words.split()]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, "")
