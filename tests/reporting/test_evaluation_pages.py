from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from tests.photos.bad_photos import encode, texture
from vladmap.reporting.evaluation import (
    MAX_FAILURES,
    Evaluation,
    Failure,
    RecallRow,
    write_evaluation,
)
from vladmap.reporting.evaluation_plots import plot_comparison, plot_recall
from vladmap.reporting.evaluation_table import MethodRow, markdown, write_csv

HOSTILE = "<script>alert(1)</script>&.jpg"

ROW = RecallRow("all", 4, 3, {1: 0.5, 5: 0.75}, {1: 2 / 3, 5: 1.0}, 0.7)


def test_names_are_escaped_and_an_unreadable_photograph_has_no_picture(tmp_path: Path) -> None:
    good, gone = tmp_path / "good.jpg", tmp_path / HOSTILE.replace("/", "_")
    good.write_bytes(encode(texture(0, 960, 720)))
    failures = [Failure(good, gone, good, "night & fog", None, 0)]
    notes = ["<b>1</b> photograph"]
    out = tmp_path / "out"
    write_evaluation(out, Evaluation(HOSTILE, [("Set", HOSTILE)], notes, [ROW], failures))
    index, page = ((out / f"{name}.html").read_text() for name in ("index", "failures"))
    for text in (index, page):
        assert "<script" not in text
        assert "default-src 'none'" in text.replace("&#39;", "'")
    assert "&lt;b&gt;1" in index
    assert "66.7 %" in index
    assert "no picture" in page
    assert "night &amp; fog" in page
    assert "right, not found" in page
    assert " away" not in page
    assert len(list((out / "thumbnails").iterdir())) == 1


def test_no_more_failures_are_shown_than_a_page_bears(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(encode(texture(0)))
    failures = [Failure(photo, photo, photo, "", 100.0, 2)] * (MAX_FAILURES + 5)
    out = tmp_path / "out"
    (out / "thumbnails").mkdir(parents=True)
    (out / "thumbnails" / "stale.jpg").write_bytes(b"")
    write_evaluation(out, Evaluation("set", [], [], [ROW], failures))
    page = (out / "failures.html").read_text()
    assert page.count('class="triple"') == MAX_FAILURES
    assert f"{MAX_FAILURES + 5} queries" in page
    assert f"the {MAX_FAILURES} with the most certain" in page
    assert len(list((out / "thumbnails").iterdir())) == 1


def test_the_table_aligns_what_was_measured_and_lists_what_was_left_out() -> None:
    rows = [
        MethodRow("VLAD", "vlad", 0.5, 0.75, 32768, 12.34, 0.5, interval=(0.4, 0.605)),
        MethodRow("NetVLAD", "netvlad", left_out="no checkpoint"),
    ]
    assert markdown(rows).splitlines() == [
        "| method | recall@1 % |      95 % | recall@5 % | bytes/image | ms/image | ms/query |",
        "| ------ | ---------: | --------: | ---------: | ----------: | -------: | -------: |",
        "| VLAD   |       50.0 | 40.0-60.5 |       75.0 |      32,768 |     12.3 |     0.50 |",
        "",
        "- left out: NetVLAD (no checkpoint)",
    ]
    assert math.isnan(rows[1].recall_1)


def test_recall_by_condition_is_a_table_of_its_own(tmp_path: Path) -> None:
    rows = [
        MethodRow("VLAD", "vlad", 0.5, 0.75, 8, 1, 1, by_condition={"night": 0.25, "day": 0.75}),
        MethodRow("BoVW", "bovw", 0.5, 0.75, 8, 1, 1, by_condition={"day": 0.5}),
    ]
    assert markdown(rows).splitlines()[-4:] == [
        "| recall@1 % |  day | night |",
        "| ---------- | ---: | ----: |",
        "| VLAD       | 75.0 |  25.0 |",
        "| BoVW       | 50.0 |     - |",
    ]
    write_csv(tmp_path / "table.csv", rows)
    with (tmp_path / "table.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["recall_1_night"], second["recall_1_night"]) == ("0.25", "")


@pytest.mark.medium
def test_equal_plots_are_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        plot_recall(folder, {"all": {1: 0.5, 5: 1.0}, "night": {1: 0.25, 5: 0.5}})
        plot_comparison(folder, [("VLAD", 32768.0, 0.5), ("BoVW", 4096.0, 0.25)])
    for file in ("recall.svg", "recall.png", "comparison.svg", "comparison.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
