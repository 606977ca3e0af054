"""The report's section on the truth, and the same figures on the terminal."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from tests.reporting.synthetic import loop_report
from vladmap.reporting.data import TruthFigures
from vladmap.reporting.report import render
from vladmap.reporting.truth_section import notes, recall_lines, truth_section

SPREAD = {"images": 3, "median": 0.5, "p95": 1.25, "max": 2.0}
MAP = {
    "images": 4,
    "models": 1,
    "registered": 3,
    "registered_in_largest": 3,
    "share": 0.75,
    "share_in_largest": 0.75,
    "by_gps_m": SPREAD | {"over_1_m": 2, "over_5_m": 0},
    "aligned_m": SPREAD | {"over_1_m": 1, "over_5_m": 0},
    "rotation_deg": SPREAD,
}
RETRIEVAL = {
    "model": "netvlad-lite",
    "dimension": 4096,
    "right_m": 25.0,
    "right_deg": 40.0,
    "beside": 10.0,
    "queries": 4,
    "queries_with_positive": 3,
    "queries_unreadable": 0,
    "queries_without_heading": 0,
    "found": {"1": 1, "10": 3, "20": 3, "5": 2},
    "recall_over_all_queries": {"1": 0.25, "10": 0.75, "20": 0.75, "5": 0.5},
    "recall_over_queries_with_positive": {"1": 1 / 3, "10": 1.0, "20": 1.0, "5": 2 / 3},
}


def page(truth: TruthFigures | None) -> str:
    data = loop_report(4, unregistered=0, rejected=0)
    return render(dataclasses.replace(data, truth=truth))


def figures(retrieval: dict[str, Any] | None = RETRIEVAL, current: bool = True) -> TruthFigures:
    return TruthFigures(current=current, map=MAP, retrieval=retrieval)


def words(text: str) -> str:
    """The text of the section alone."""
    section = text.split('id="truth"')[1].split("</section>")[0]
    return " ".join(re.sub("<[^>]*>", " ", section).split())


def test_without_a_truth_there_is_no_section_and_no_link_to_it() -> None:
    text = page(None)
    assert "Against the truth" not in text
    assert 'href="#truth"' not in text


def test_the_section_states_recalls_with_both_denominators_and_the_errors_of_the_map() -> None:
    text = page(figures())
    text_of_page = words(text)
    assert 'href="#truth"' in text
    assert "Descriptors of 4,096 dimensions by netvlad-lite: each of 4 images" in text_of_page
    assert "recall@1 1 25.0 % 33.3 %" in text_of_page
    assert "recall@5 2 50.0 % 66.7 %" in text_of_page
    assert (
        text_of_page.index("recall@5 ")
        < text_of_page.index("recall@10 ")
        < text_of_page.index("recall@20 ")
    )
    assert 'style="width: 66.67%"' in text
    assert "3 of 4 images of the truth are registered (75.0 %)" in text_of_page
    assert "Position, as placed by GPS 0.50 m 1.25 m 2.00 m 2 0 3" in text_of_page
    assert "Position, aligned to the truth 0.50 m 1.25 m 2.00 m 1 0 3" in text_of_page
    assert "Rotation, aligned to the truth 0.50° 1.25° 2.00° 3" in text_of_page
    assert "against the truth, of 3 queries" in text.split("<nav")[0]


def test_a_comparison_with_an_earlier_atlas_is_named_and_shows_no_figure() -> None:
    text = page(figures(current=False))
    assert "vladmap check-map compares it anew" in words(text)
    assert "recall@" not in words(text)
    assert "Recall@1<" not in text


def test_without_descriptors_the_section_has_the_map_alone() -> None:
    text_of_page = words(page(figures(None)))
    assert "Recall is not known" in text_of_page
    assert "Position, aligned to the truth" in text_of_page
    assert "no descriptors of gem" in recall_lines(None, "gem")


def test_a_map_that_has_no_place_has_no_errors() -> None:
    bare = {key: value for key, value in MAP.items() if not isinstance(value, dict)}
    text_of_page = words(page(TruthFigures(current=True, map=bare, retrieval=RETRIEVAL)))
    assert "no model has a place on Earth" in text_of_page


def test_shares_of_no_queries_are_not_known() -> None:
    none = dict.fromkeys(RETRIEVAL["found"])
    without_positives = RETRIEVAL | {
        "queries_with_positive": 0,
        "recall_over_queries_with_positive": none,
    }
    section = truth_section(figures(without_positives))
    assert section is not None
    assert section.recalls[0].width == "0.00"
    assert "recall@1 1 25.0 % — " in words(page(figures(without_positives)))
    assert recall_lines(without_positives, "").splitlines()[-1].split()[-5:] == [
        "0",
        "-",
        "-",
        "-",
        "-",
    ]


def test_notes_say_what_was_left_out_and_what_could_not_be_told() -> None:
    assert notes(RETRIEVAL)[0].endswith("within 25 m of the query and 40 degrees of its heading.")
    assert "1 queries have no right match" in notes(RETRIEVAL)[2]
    some = notes(RETRIEVAL | {"queries_without_heading": 2, "queries_unreadable": 1})
    assert "2 images have no heading" in some[2]
    assert "1 images have no descriptor" in some[4]
    none = notes(RETRIEVAL | {"queries_without_heading": 4})
    assert none[0] == "A match is right within 25 m of the query."
    assert none[2] == "The truth has no heading: there the position alone counts."


def test_the_terminal_has_the_same_recalls() -> None:
    *_, all_of_them, those = recall_lines(RETRIEVAL, "netvlad-lite").splitlines()
    assert all_of_them.split() == ["all", "4", "25.0", "50.0", "75.0", "75.0"]
    assert those.split()[-5:] == ["3", "33.3", "66.7", "100.0", "100.0"]
