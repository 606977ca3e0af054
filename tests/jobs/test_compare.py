from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.jobs.places import write_places
from tests.photos.bad_photos import encode, texture
from vladmap.jobs.main import main

pytestmark = pytest.mark.medium


def test_methods_stand_side_by_side_and_those_without_weights_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_places(tmp_path / "set")
    out = tmp_path / "out"
    command = ["compare", str(tmp_path / "set"), "--output", str(out), "--method", "gem"]
    command += ["--method", "gem+sift", "--method", "netvlad", "--method", "patch-netvlad=no.pth"]
    assert main(command) == 0
    with (out / "comparison.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert [*rows] == ["gem", "gem+sift", "NetVLAD", "Patch-NetVLAD"]
    assert rows["gem"]["recall_1"] == "1"
    assert rows["gem"]["bytes_an_image"] == str(4 * 112)
    # Beside the descriptor, SIFT's keypoints and descriptors take their own room and time.
    assert float(rows["gem+sift"]["bytes_an_image"]) > 4 * 112
    for column in ("milliseconds_an_image", "milliseconds_a_query"):
        assert float(rows["gem+sift"][column]) > 0
    assert "needs a checkpoint" in rows["NetVLAD"]["left_out"]
    assert "no.pth: No such file" in rows["Patch-NetVLAD"]["left_out"]
    output = capsys.readouterr().out
    text = (out / "comparison.md").read_text()
    assert text in output
    assert "| gem " in text
    assert "- left out: NetVLAD (the model netvlad needs a checkpoint" in text
    assert (out / "comparison.svg").read_bytes().startswith(b"<?xml")
    assert (out / "comparison.png").exists()


@pytest.mark.parametrize(
    ("method", "says"), [("alexnet", "'alexnet' is none of"), ("vlad+luck", "'luck' is none of")]
)
def test_an_unknown_method_is_one_clear_line(
    method: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(tmp_path), "--method", method]) == 2
    assert says in capsys.readouterr().err


def test_indexes_and_drives_matched_as_one_have_rows_of_their_own(tmp_path: Path) -> None:
    for part in ("database", "queries"):
        (tmp_path / part).mkdir()
        for frame in range(6):
            (tmp_path / part / f"{frame}.jpg").write_bytes(encode(texture(frame)))
    out = tmp_path / "out"
    command = ["compare", str(tmp_path), "--output", str(out), "--method", "thumbnail"]
    command += ["--index", "kdtree", "--index", "Flat"]
    assert main([*command, "--sequence", "seqslam=4", "--sequence", "delta"]) == 0
    with (out / "comparison.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert [*rows] == [
        "thumbnail",
        "thumbnail, kdtree",
        "thumbnail, Flat",
        "thumbnail, seqslam=4",
        "thumbnail, delta",
    ]
    for by_index in ("thumbnail, kdtree", "thumbnail, Flat"):
        assert rows[by_index]["recall_1"] == rows["thumbnail"]["recall_1"] == "1"
    assert rows["thumbnail, seqslam=4"]["recall_1"] == "1"
    assert rows["thumbnail, seqslam=4"]["recall_1_low"] == "1"
