"""The page of localised photographs: pictures side by side, lines where the inliers are."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from vladmap.reporting.localised_page import Shown, write_localised

WIDE, TALL = np.zeros((60, 80, 3), np.uint8), np.full((120, 90, 3), 255, np.uint8)


def drawings(page: str) -> list[ElementTree.Element]:
    """The pictures of a page, read as XML."""
    parts = [part.partition("</svg>")[0] for part in page.split("<svg")[1:]]
    return [ElementTree.fromstring(f"<svg{part}</svg>") for part in parts]


def test_lines_join_the_inliers_of_two_pictures_of_one_height(tmp_path: Path) -> None:
    lines = np.array([[0.5, 0.5, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    shown = Shown("a.jpg", "pose", "here", WIDE, "b.jpg", TALL, lines)
    write_localised(tmp_path / "new" / "page.html", "atlas", ["1 photograph"], [shown])
    (drawing,) = drawings((tmp_path / "new" / "page.html").read_text())
    pictures = [each.attrib for each in drawing.iter("image")]
    # 60 x 80 at a height of 120 is 160 wide; the other begins 8 pixels behind it.
    assert [(each["x"], each["width"], each["height"]) for each in pictures] == [
        ("0.0", "160.0", "120"),
        ("168.0", "90.0", "120"),
    ]
    ends = [
        [float(line.get(name, "")) for name in ("x1", "y1", "x2", "y2")]
        for line in drawing.iter("line")
    ]
    assert ends == [[80.0, 60.0, 168.0, 120.0], [0.0, 0.0, 258.0, 0.0]]


def test_a_photograph_without_pictures_and_a_hostile_name_are_shown_as_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>.jpg"
    shown = [Shown(hostile, "unknown", "rejected: <b>", None), Shown("b", "unknown", "", WIDE)]
    for name in ("one", "two"):
        write_localised(tmp_path / f"{name}.html", "<i>", [], shown)
    page = (tmp_path / "one.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.jpg" in page
    assert "default-src 'none'" in page.replace("&#39;", "'")
    assert len(drawings(page)) == 1
    assert page == (tmp_path / "two.html").read_text()


def test_of_very_many_inliers_some_are_drawn_spread_over_all(tmp_path: Path) -> None:
    lines = np.linspace(0, 1, 5000)[:, None] * np.ones(4)
    write_localised(
        tmp_path / "page.html", "atlas", [], [Shown("a", "pose", "", WIDE, "b", WIDE, lines)]
    )
    (drawing,) = drawings((tmp_path / "page.html").read_text())
    heights = [float(line.get("y1", "")) for line in drawing.iter("line")]
    assert len(heights) == 60
    assert (heights[0], heights[-1]) == (0.0, 60.0)
