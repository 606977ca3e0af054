"""What the terminal says at the end of a build, and how figures are written."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from tests.reporting.synthetic import loop_report
from vladmap.reporting import number_formats as formats
from vladmap.reporting.summary import terminal_summary


def test_the_summary_says_what_was_done_and_where_the_report_is() -> None:
    lines = terminal_summary(loop_report(), "atlas/report/index.html").splitlines()
    by_title = {line.split("  ")[0].strip(): line for line in lines if line.strip()}
    assert by_title["images"].split(maxsplit=1)[1] == "120 (1 without GPS)"
    assert by_title["rejected"].split()[1] == "5"
    reasons = [line.split() for line in lines if line.startswith("  ")]
    assert reasons == [
        ["no_features", "3"], ["empty_file", "1"], ["not_an_image", "1"],
        ["rejected", "5"], ["left_out_by_mapper", "4"],
    ]  # fmt: skip
    # Issue 19, 13: 113 are registered, and 9 more were offered.
    assert by_title["not in the map"].split(maxsplit=4)[4] == "9 of 122 photographs"
    assert by_title["registered"].endswith("113 of 120 (94.2 %)")
    assert by_title["models"].endswith("2 (images: 90, 23)")
    residual = by_title["GPS residual"].split(maxsplit=2)[2]
    assert re.fullmatch(r"\d\.\d\d m horizontal \(median\)", residual), "issue 19, 13"
    assert by_title["tiles failed"].endswith("1 of 2: 8b1f1-000")
    assert by_title["because"].endswith("  no model within 600 s"), "issue 19, 1"
    assert by_title["verify"].split()[1:4] == ["1", "min", "06"]
    assert lines[-1] == "Report: atlas/report/index.html"


def test_names_cannot_command_the_terminal() -> None:
    data = loop_report()
    data = dataclasses.replace(data, tiles=[{"name": "\x1b[2J\n", "failure": "gone"}])
    assert "\x1b" not in terminal_summary(data)
    assert r"\x1b[2J\n" in terminal_summary(data)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.count(1234567), "1,234,567"),
        (formats.count(None), "—"),
        (formats.share(0.9999), "99.9 %"),
        (formats.share(1.0), "100 %"),
        (formats.share(0.0001), "0.1 %"),
        (formats.share(0.0), "0 %"),
        (formats.share(math.nan), "—"),
        (formats.metres(2.345), "2.35 m"),
        (formats.metres(999.996), "1.00 km"),
        (formats.metres(12_345.0), "12.35 km"),
        (formats.duration(0.25), "0.25 s"),
        (formats.duration(9.999), "10.0 s"),
        (formats.duration(59.97), "1 min 00 s"),
        (formats.duration(3661), "1 h 01 min"),
        (formats.rate(12.345, "images"), "12.3 images/s"),
        (formats.rate(0.024), "0.024 /s"),
        (formats.rate(4321.0, "pairs"), "4,321 pairs/s"),
    ],
)
def test_figures_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected
