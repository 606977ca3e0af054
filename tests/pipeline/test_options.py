"""Options of a build: their ranges, and files of them."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest

from vladmap.jobs.main import main
from vladmap.pipeline.command_options import add_options, build_options
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.stages import STAGES
from vladmap.schemas.rejects import UserError

NUMBERS = [
    option for option in dataclasses.fields(BuildOptions) if str(option.type) in ("int", "float")
]


def parse(*words: str) -> BuildOptions:
    parser = argparse.ArgumentParser()
    add_options(parser, STAGES.values())
    return build_options(vars(parser.parse_args(words)))[0]


def test_every_number_has_a_range_that_holds_its_default() -> None:
    for option in NUMBERS:
        assert option.default in option.metadata["within"]


@pytest.mark.parametrize("option", NUMBERS, ids=lambda option: option.name)
def test_a_number_out_of_range_is_refused(option: dataclasses.Field[float]) -> None:
    """Issue 19, 21: `--threads -3` and `--seed -1` were tracebacks."""
    flag, allowed = "--" + option.name.replace("_", "-"), option.metadata["within"]
    wrong = [str(int(allowed.low) - 3), str(int(allowed.high) + 1)]
    if allowed.above:
        wrong.append("0")
    if str(option.type) == "float":
        wrong += ["nan", "inf", "-inf"]
    for text in wrong:
        with pytest.raises(UserError, match=f"^{flag} must be "):
            parse(f"{flag}={text}")
    parse(f"{flag}={option.default}")


@pytest.mark.parametrize("text", ["a\0b", "a\udcffb"])
def test_what_no_file_is_called_is_refused(text: str) -> None:
    """Issue 19, 21: a NUL in a path was a traceback."""
    with pytest.raises(UserError, match=r"--atlas .*no file has such a name"):
        parse("--atlas", text)


BROKEN = [
    "tile-images: [",
    "tile-images: 2024-13-45",
    f"tile-images: {'9' * 5000}",
    "[" * 3000,
    "tile-images: !!python/object/apply:os.system [id]",
    "? [a]: 1",
    "tile-images: \x01",
    "- a",
    "tile-images: .nan",
    "seed: -1",
    "images: [a]",
    "images: 'a\\0b'\nimages2: 1",
    "beam: 3",
    "beam: {regionn: x}",
    "&a [*a]",
    "tile-images: true",
    "'': 1",
    "null: 1",
    "beam: 'a \" b'",
    "beam: [null]",
]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_config_is_one_line_that_names_it(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 21: an impossible date, a deep nest or a huge number in it was a traceback."""
    (tmp_path / "c.yaml").write_text(text)
    words = ["--images", str(tmp_path), "--atlas", str(tmp_path / "atlas")]
    assert main(["build", *words, "--config", str(tmp_path / "c.yaml")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("vladmap: ")
    assert not (tmp_path / "atlas").exists()


WRONG_NUMBERS = [
    ["sample", "city", "--seed", "-1"],
    ["sample", "city", "--images", "0"],
    ["sample", "city", "--gps-sigma-m", "nan"],
    ["sample", "city", "--gps-dropout", "1.5"],
    ["sample", "city", "--time-of-day", "25"],
    ["worlds", "out", "--places", "0"],
    ["worlds", "out", "--workers", "-3"],
    ["worlds", "out", "--every", "0"],
    ["worlds", "out", "--seeds", "0:99999999999"],
    ["worlds", "out", "--seeds", "-1"],
    ["worlds", "out", "--size", "5x-5"],
    ["worlds", "out", "--size", "999999x9"],
    ["evaluate", "set", "--seed", "-1"],
    ["evaluate", "set", "--rerank-candidates", "0"],
    ["evaluate", "set", "--positives-m", "inf"],
    ["evaluate", "set", "--smooth", "nan"],
    ["evaluate", "set", "--last-share", "0"],
    ["evaluate", "set", "--whiten", "-2"],
    ["compare", "set", "--dimension", "-1"],
    ["train", "--data", "a", "--output", "{tmp}/o", "--seed", "-1"],
    ["train", "--data", "a", "--output", "{tmp}/o", "--threads", "-3"],
    ["train", "--data", "a", "--output", "{tmp}/o", "--rate", "nan"],
    ["train", "--data", "a", "--output", "{tmp}/o", "--long-side", "0"],
    ["distil", "--worlds", "a", "--output", "{tmp}/o", "--seed", "-1"],
    ["distil", "--worlds", "a", "--output", "{tmp}/o", "--crops", "0"],
]


@pytest.mark.parametrize("words", WRONG_NUMBERS, ids=" ".join)
def test_a_number_out_of_range_is_one_line_in_every_job(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 21."""
    try:
        code = main([word.format(tmp=tmp_path) for word in words])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(lines) == 1
    assert "must be" in lines[0]
