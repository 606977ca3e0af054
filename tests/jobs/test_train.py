from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.models.scenes import Pixels, seen_twice
from vladmap.jobs.main import main
from vladmap.models import load_model
from vladmap.models.checkpoints.layouts import network
from vladmap.weights.reading import read_weights

pytestmark = pytest.mark.medium

QUICK = [
    *("--aggregation", "gem", "--long-side", "64", "--epochs", "2", "--tuples", "8"),
    *("--hardest", "3", "--optimiser", "adamw", "--rate", "1e-3", "--threads", "2"),
]


def write(folder: Path, images: list[Pixels], first: int = 0, apart: float = 60.0) -> None:
    """Images along a road, named as the evaluation layout has it."""
    folder.mkdir(parents=True)
    for n, image in enumerate(images):
        east = 500_000 + apart * (first + n)
        name = f"@{east:.2f}@5800000.00@33@U@@@p{n:04d}@0@0@@@@@day@.jpg"
        Image.fromarray(image).save(folder / name, quality=95)


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    for split, first, count in (("train", 0, 24), ("val", 1000, 16)):
        database, queries = seen_twice(first, count)
        write(tmp_path / "set/images" / split / "database", database, first)
        write(tmp_path / "set/images" / split / "queries", queries, first)
    return tmp_path / "set"


def curve(folder: Path) -> list[dict[str, str]]:
    with (folder / "curve.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_writes_its_models_its_curve_and_how_to_evaluate(
    layout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", "--data", str(layout), "--output", str(run), *QUICK]) == 0
    output = capsys.readouterr().out
    assert f"--model gem --checkpoint {run / 'best.safetensors'}" in output
    rows = curve(run)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["loss"] == ""
    assert float(rows[2]["recall@1"]) > float(rows[0]["recall@1"])
    record = json.loads((run / "training.json").read_text())
    assert record["counts"]["queries with potential positives"] == 24
    assert record["recipe"]["rate"] == 1e-3
    best = load_model("gem", run / "best.safetensors")
    assert best.input_long_side(640, 480) == (64, 48)
    assert not list(run.glob("*.partial"))

    assert main(["train", "--data", str(layout), "--output", str(run), *QUICK]) == 2
    assert "go on by --resume" in capsys.readouterr().err
    before = (run / "curve.csv").read_bytes()
    assert main(["train", "--data", str(layout), "--output", str(run), *QUICK, "--resume"]) == 0
    assert (run / "curve.csv").read_bytes() == before

    after = tmp_path / "after"
    init = ["--init", str(run / "best.safetensors"), "--epochs", "0", "--long-side", "64"]
    assert main(["train", "--data", str(layout), "--output", str(after), *init]) == 0
    assert curve(after)[0]["recall@1"] == max(row["recall@1"] for row in rows)


def test_photographs_that_do_not_decode_are_counted_and_left_out(
    layout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train/database", "train/queries", "val/database"):
        first = min((layout / "images" / part).iterdir())
        first.write_bytes(first.read_bytes()[:300])
    run = tmp_path / "run"
    options = [*QUICK, "--epochs", "0"]
    assert main(["train", "--data", str(layout), "--output", str(run), *options]) == 0
    assert capsys.readouterr().err.count("left out") == 3
    counts = json.loads((run / "training.json").read_text())["counts"]
    assert counts["database"] == counts["queries"] == 23
    assert counts["validation database"] == 15
    assert counts["validation queries"] == 16


def test_without_a_validation_split_areas_are_held_out(layout: Path, tmp_path: Path) -> None:
    (layout / "images/val").rename(tmp_path / "elsewhere")
    run = tmp_path / "run"
    options = [*QUICK, "--epochs", "0", "--validate-share", "0.25"]
    assert main(["train", "--data", str(layout), "--output", str(run), *options]) == 0
    counts = json.loads((run / "training.json").read_text())["counts"]
    assert counts["queries"] + counts["validation queries"] == 24
    assert counts["validation queries"] >= 6


def test_frames_validate_and_ghost_net_is_trained_from_nothing(
    layout: Path, tmp_path: Path
) -> None:
    database, queries = seen_twice(2000, 6)
    for side, images in (("database", database), ("queries", queries)):
        (tmp_path / "walk" / side).mkdir(parents=True)
        for n, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "walk" / side / f"{n}.png")
    run = tmp_path / "run"
    options = ["--data", str(layout), "--validate", str(tmp_path / "walk"), "--output", str(run)]
    options += ["--backbone", "ghost", "--clusters", "3", "--project", "2", "--long-side", "64"]
    assert main(["train", *options, "--epochs", "1", "--queries-an-epoch", "4"]) == 0
    start = network(read_weights(run / "best.safetensors"))
    assert start.backbone.name == "ghost-dilated"
    model = load_model("ghost-dil-netvlad", run / "last.safetensors")
    assert model.describe(database).shape == (6, 2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data", "walk"], "no positions to learn from"),
        (["--loss", "multi-similarity", "--rate", "0"], "rate must be above 0"),
        (["--tuned-blocks", "40"], "12 stages"),
        (["--project", "64"], "needs at least 640 images"),
        (["--backbone", "nowhere.pth"], "cannot read"),
        (["--init", "vocabulary"], "is a vocabulary"),
        (["--precision", "float16"], "does not train in float16"),
    ],
)
def test_what_cannot_be_trained_is_one_clear_line(
    options: list[str],
    says: str,
    layout: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "walk/database", [np.zeros((9, 9, 3), np.uint8)])
    write(tmp_path / "walk/queries", [np.zeros((9, 9, 3), np.uint8)])
    for path in (tmp_path / "walk").rglob("*.jpg"):
        path.rename(path.with_name("1.jpg"))
    if "vocabulary" in options:
        from vladmap.models.checkpoints.vocabulary import Vocabulary, to_bytes

        words = Vocabulary("vlad", "", 0, np.zeros((2, 128), np.float32))
        (tmp_path / "vocabulary").write_bytes(to_bytes(words))
    assert main(["train", "--data", str(layout), "--output", "run", *QUICK, *options]) == 2
    assert says in capsys.readouterr().err
