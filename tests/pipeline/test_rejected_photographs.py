"""Builds of one photograph, of all but one rejected, and of all rejected: one clear end each."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pickle
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from setuptools import find_packages

from tests.drives import write_drive
from tests.photos import hungry
from tests.photos.bad_photos import encode
from tests.photos.damage import damaged, picture
from vladmap.atlas.store import AtlasStore
from vladmap.jobs import build
from vladmap.jobs.command import EXIT_USER_ERROR, guarded, log_options
from vladmap.pipeline.build import run_stages
from vladmap.pipeline.command_options import build_options
from vladmap.pipeline.stages import STAGES
from vladmap.schemas.rejects import PhotoError, RejectReason

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases"


def exceptions() -> Iterator[type[BaseException]]:
    """Every exception class of the project's own packages."""
    packages = find_packages(str(ROOT), exclude=["tests*", "benchmarks*", "vladmap*", "build*"])
    for package in packages:
        for module in pkgutil.iter_modules([str(ROOT / package.replace(".", "/"))]):
            if module.name.startswith("__"):
                continue
            name = f"vladmap.{package}.{module.name}"
            for _, member in inspect.getmembers(importlib.import_module(name), inspect.isclass):
                if issubclass(member, BaseException) and member.__module__ == name:
                    yield member


def made(kind: type[BaseException]) -> BaseException:
    """An instance, each of its arguments a text that can be recognised."""
    if kind is PhotoError:
        return PhotoError(RejectReason.NO_FEATURES, "nothing in it")
    if not inspect.isfunction(kind.__init__):
        return kind("said")
    _, *arguments = inspect.signature(kind.__init__).parameters.values()
    needed = [
        f"said {place}"
        for place, each in enumerate(arguments)
        if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    return kind(*(needed or ["said"]))


def test_every_exception_of_ours_survives_the_way_between_processes() -> None:
    """Issue 19, 14: an exception that does not unpickle breaks the pool that it was raised in."""
    kinds = set(exceptions())
    assert {"PhotoError", "UserError", "ChildFailed"} <= {kind.__name__ for kind in kinds}
    for kind in kinds:
        error = made(kind)
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), vars(back)) == (kind, str(error), vars(error))


def run(photos: Path, atlas: Path, *options: str) -> int:
    words = ["--images", str(photos), "--atlas", str(atlas), "--max-reject-rate", "1"]
    return build.main([*words, "--threads", "1", *options])


def run_part(stages: Sequence[str], words: Sequence[str]) -> int:
    """Some stages of a build with the options of all of it."""
    parsed, _ = build.command_line().parse_known_args(words)

    def work() -> None:
        options, _ = build_options(vars(parsed))
        atlas = AtlasStore.open(options.atlas, create="ingest" in stages)
        run_stages(atlas, options, [], stages)

    return guarded(work, log_options(parsed))


def rejected(atlas: Path) -> dict[str, str]:
    """name -> reason."""
    return {
        Path(row["uri"]).name: row["reason"]
        for path in sorted((atlas / "rejects").rglob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    }


@functools.cache
def black() -> bytes:
    return encode(np.zeros((192, 256, 3), np.uint8))


def write(folder: Path, good: int, *, bad: dict[str, bytes]) -> Path:
    """The first `good` photographs of a drive, and others."""
    write_drive(folder, good)
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    return folder


MODELS = {
    "shipped": (),
    "learnt": ("--learn", "--clusters", "2", "--dimension", "4"),
    "vlad": ("--model", "vlad", "--clusters", "2"),
    "bovw": ("--model", "bovw", "--clusters", "2"),
    "whitened": ("--model", "vlad", "--clusters", "2", "--whiten", "2"),
    "by features": ("--rerank", "features"),
}
PATCHES = ("--learn", "--clusters", "2", "--rerank", "rapid", "--patch-dimension", "2")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("left", ["none", "one", "a black one"])
def test_one_photograph_or_none_ends_in_one_line(
    model: str, left: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 14: nothing left to map is the user's to know, and no traceback."""
    bad = black() if left == "a black one" else b"no photograph"
    photos = write(tmp_path / "photos", int(left == "one"), bad={"z.jpg": bad})
    for _ in range(2):  # on a retry as well
        # What can be described makes an atlas, and an empty map.
        one_line(run(photos, tmp_path / "atlas", *MODELS[model]), capsys)


def one_line(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    output = capsys.readouterr().err
    assert code in (0, EXIT_USER_ERROR), output
    assert "Traceback" not in output
    if code == EXIT_USER_ERROR:
        last = output.strip().splitlines()[-1]
        assert last.startswith("vladmap: ")
        assert "shards are not in the ledger" not in last


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["all", "all but one"])
@pytest.mark.parametrize(
    ("stage", "model"),
    [("describe", model) for model in (*MODELS, "by patches")]
    + [("verify", "shipped"), ("verify", "by patches")],
)
def test_photographs_that_are_gone_after_ingest_end_in_one_line(
    gone: str, model: str, stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 14: stages after ingest read the pixels again, and may find none."""
    photos = write(tmp_path / "photos", 3, bad={})
    names = list(STAGES)
    place = names.index(stage)
    words = ["--images", str(photos), "--atlas", str(tmp_path / "atlas"), "--threads", "1"]
    words += ["--max-reject-rate", "1", *MODELS.get(model, PATCHES)]
    assert run_part(names[:place], words) == 0
    for path in sorted(photos.iterdir())[0 if gone == "all" else 1 :]:
        path.unlink()
    for _ in range(2):
        one_line(run_part(names[place:], words), capsys)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("shipped", ("--threads", "2")),
        ("vlad", ("--shard-images", "1")),
        ("by features", ("--shard-images", "1")),
        ("by patches", ("--shard-images", "1")),
    ],
)
def test_a_black_frame_among_good_ones_is_one_reject(
    model: str, options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 14 (cases/blank): the black one is told, the others go on, in one shard or many."""
    photos = write(tmp_path / "photos", 6, bad={"black.jpg": black()})
    code = run(photos, tmp_path / "atlas", *MODELS.get(model, PATCHES), *options)
    assert code == 0, capsys.readouterr().err
    assert rejected(tmp_path / "atlas").keys() == {"black.jpg"}
    assert pq.read_table(tmp_path / "atlas" / "features" / "sift").num_rows == 6


@pytest.mark.slow
def test_two_photographs_that_match_and_make_no_model_end_clearly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 14: a tile that fails leaves `merge` and `report` with no model at all."""
    photos = write(tmp_path / "photos", 2, bad={})
    code = run(photos, tmp_path / "atlas")
    output = capsys.readouterr()
    assert code == 0, output.err
    assert "registered      0 of 2" in output.out


def test_hungry_and_damaged_files_are_rejects_of_ingest_and_describe(tmp_path: Path) -> None:
    """Issue 19, 9 and 15: whatever stands among the photographs, the others go on."""
    generator = np.random.default_rng(0)
    photos = write(
        tmp_path / "photos",
        4,
        bad={
            "damaged.jpg": damaged(encode(picture(1)), "zeros", generator),
            "scans.jpg": hungry.SEEN["300 scans"](),
            "claims.webp": hungry.SEEN["34 bytes of WebP"](),
        },
    )
    with (photos / "sparse.tif").open("wb") as sparse:
        sparse.truncate(300 * 10**9)
    names = list(STAGES)
    words = ["--images", str(photos), "--atlas", str(tmp_path / "atlas"), "--threads", "2"]
    words += ["--max-reject-rate", "1"]
    assert run_part(names[:1], words) == 0
    reasons = {
        "damaged.jpg": "decode_failed",
        "scans.jpg": "too_costly",
        "claims.webp": "too_costly",
        "sparse.tif": "too_large",
    }
    assert rejected(tmp_path / "atlas") == reasons
    # After ingest a pipe is put where a photograph was, and its writer never comes.
    (photos / "0001.jpg").unlink()
    os.mkfifo(photos / "0001.jpg")
    assert run_part(names[1:2], words) == 0
    assert rejected(tmp_path / "atlas") == {**reasons, "0001.jpg": "not_a_file"}


@pytest.mark.slow
def test_the_case_of_a_black_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Issue 19, 14: cases/blank."""
    words = ["--images", str(CASES / "blank"), "--atlas", str(tmp_path / "atlas")]
    code = build.main([*words, "--threads", "1"])
    assert code == 0, capsys.readouterr().err
    assert rejected(tmp_path / "atlas") == {"black.jpg": "no_features"}
