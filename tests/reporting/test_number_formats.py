"""What a spreadsheet would take for a formula."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from vladmap.reporting.evaluation_table import MethodRow, write_csv
from vladmap.reporting.number_formats import cell


@pytest.mark.parametrize(
    "text", ["=1+1", "+a", "-a", "@SUM(A1)", "\ta", "\r=1", " =1+1", '=HYPERLINK("x")', "\uff1d1"]
)
def test_a_cell_that_begins_like_a_formula_begins_with_an_apostrophe(text: str) -> None:
    """Issue 19, 21: `=cmd|...` in a photograph's name ran in whoever opened queries.csv."""
    assert cell(text) == "'" + text


@pytest.mark.parametrize("text", ["", "a.jpg", "drive/=a.jpg", "a=b", "1.5", "é"])
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert cell(text) == text


def test_the_table_of_methods_is_safe_to_open(tmp_path: Path) -> None:
    """Issue 19, 21."""
    row = MethodRow("=method", "vlad", left_out="@a\n=1, cannot be read")
    write_csv(tmp_path / "t.csv", [row])
    with (tmp_path / "t.csv").open(newline="") as file:
        last = list(csv.reader(file))[-1]
    assert last[0] == "'=method"
    assert last[-1] == "'@a\n=1, cannot be read"
