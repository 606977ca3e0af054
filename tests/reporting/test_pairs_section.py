"""The page says which pairs were refused and why, which loops were kept, and what drives drift."""

from __future__ import annotations

import dataclasses
import re

import pyarrow as pa

from tests.reporting.synthetic import loop_report, thumbnail
from vladmap.reporting.atlas_map import atlas_map
from vladmap.reporting.data import JUDGED_PAIRS, ReportData
from vladmap.reporting.facts import facts_of
from vladmap.reporting.pairs_section import WORST, pairs_section, worst_refused
from vladmap.reporting.report import render
from vladmap.reporting.summary import figures, terminal_summary
from vladmap.schemas.loop_tables import DRIVES, LOOPS

HOSTILE_DRIVE = "<b>drive</b>"


def pair(
    a: int, b: int, inliers: int, verdict: str, probability: float | None
) -> dict[str, object]:
    return {
        "image_id_a": f"{a:032x}", "image_id_b": f"{b:032x}", "inliers": inliers,
        "verdict": verdict, "probability": probability, "distance_m": 12.0,
    }  # fmt: skip


def with_pairs() -> ReportData:
    judged = [pair(k, k + 1, 100 + k, "kept", 0.99) for k in range(60)]
    judged += [pair(k, k + 40, 20 + k, "depth", 0.05 * k) for k in range(10)]
    judged += [pair(3, 90, 15, "far", None)]
    loops = [
        {**pair(k, k + 40, 20 + k, "depth", 0.1), "kept": False, "same_drive": True}
        for k in range(10)
    ]
    loops += [{**pair(1, 118, 60, "kept", 0.97), "kept": True, "same_drive": False}]
    drives = [
        {"sequence_id": "quiet", "images": 60, "chained": 60, "length_m": 240.0, "drift_m": 1.0,
         "drift_share": 1 / 240, "metric": True},
        {"sequence_id": HOSTILE_DRIVE, "images": 60, "chained": 50, "length_m": 200.0,
         "drift_m": 8.0, "drift_share": 0.04, "metric": True},
        {"sequence_id": "unknown", "images": 3, "chained": 0},
    ]  # fmt: skip
    loose = pa.schema([field.with_nullable(True) for field in LOOPS])
    return dataclasses.replace(
        loop_report(),
        judged=pa.Table.from_pylist(judged, schema=JUDGED_PAIRS),
        loops=pa.Table.from_pylist(loops, schema=loose),
        drives=pa.Table.from_pylist(drives, schema=DRIVES),
        in_several_tiles=[f"{k:032x}" for k in (30, 31, 32)],
        pictures={f"{9:032x}": thumbnail(40, 9)},
    )


def test_every_figure_is_counted_from_the_tables() -> None:
    section = pairs_section(with_pairs(), {f"{9:032x}": "nine.jpg"})
    assert section is not None
    assert (section.total, section.kept, section.unknown) == (71, 60, 1)
    assert (section.loops, section.loops_kept) == (11, 1)
    assert [(row[0], *row[2:]) for row in section.refused] == [("depth", 10, 10), ("far", 1, 0)]
    assert sum(row[2] for row in section.histogram) == 70
    assert section.histogram[-1][2] == 60
    assert [row["sequence_id"] for row in section.drives] == [HOSTILE_DRIVE, "quiet", "unknown"]
    worst = section.worst[0]
    assert (worst["names"], worst["inliers"]) == (["nine.jpg", f"{49:032x}"], 29)


def test_the_worst_refused_pairs_are_those_with_most_inliers() -> None:
    worst = worst_refused(with_pairs().judged)
    assert worst["inliers"].to_pylist() == list(range(29, 29 - WORST, -1))


def test_the_page_shows_pairs_loops_and_drift_and_escapes_names() -> None:
    page = render(with_pairs())
    text = re.sub(r"\s+", " ", page)
    assert "60 of 71 verified pairs are trusted" in text
    assert "11 are loops" in text
    assert "1 are kept, 10 rejected" in text
    assert "1 pairs have no probability" in text
    assert "&lt;b&gt;drive" in text
    assert HOSTILE_DRIVE not in page
    assert "8.00" in text
    assert "Without GPS nothing gives a scale" not in text


def test_the_summary_of_a_build_counts_the_same() -> None:
    data = with_pairs()
    told = figures(data)
    assert (told["pairs_trusted"], told["loops"], told["loops_kept"]) == (60, 11, 1)
    assert told["drift_m"] == {"quiet": 1.0, HOSTILE_DRIVE: 8.0, "unknown": None}
    text = re.sub(" +", " ", terminal_summary(data))
    assert "pairs trusted 60 of 71 verified" in text
    assert "loops kept 1 of 11" in text
    assert "drift corrected 8.00 m of 200.00 m at most, in <b>drive</b>" in text
    assert "pairs trusted" not in terminal_summary(loop_report())


def test_the_map_has_loops_kept_and_rejected_and_the_seams_of_tiles() -> None:
    data = with_pairs()
    layers = {layer.name: layer.count for layer in atlas_map(data, facts_of(data)).layers}
    assert (layers["loops"], layers["loops-rejected"], layers["seams"]) == (1, 10, 3)


def test_without_judged_pairs_there_is_no_section_and_no_layer() -> None:
    data = loop_report()
    assert pairs_section(data, {}) is None
    assert 'id="pairs"' not in render(data)
    layers = {layer.name for layer in atlas_map(data, facts_of(data)).layers}
    assert not layers & {"loops", "loops-rejected", "seams"}


def test_without_gps_lengths_are_said_to_be_of_a_guessed_scale() -> None:
    data = with_pairs()
    loose = data.drives.set_column(6, "metric", pa.array([False, False, None]))
    assert "Without GPS nothing gives a scale" in render(dataclasses.replace(data, drives=loose))
