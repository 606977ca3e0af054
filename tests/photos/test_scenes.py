"""Scenes by the names of their photographs."""

from __future__ import annotations

from pathlib import Path

import pytest

from vladmap.photos.scenes import aligned_scenes
from vladmap.schemas.rejects import UserError


def photograph(root: Path, place: str, condition: str) -> Path:
    name = f"@0@0@32@T@44@9@{place}@@0@@@2@20240612@{condition}@.jpg"
    path = root / "images" / "train" / "database" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_a_scene_has_its_views_in_order_and_knows_its_clear_ones(tmp_path: Path) -> None:
    night = photograph(tmp_path, "w0-p1", "night")
    day = photograph(tmp_path, "w0-p1", "day")
    other = photograph(tmp_path, "w0-p0", "day")
    first, second = aligned_scenes(tmp_path, ["day"])
    assert (first.paths, first.clear) == ((other,), (0,))
    assert (second.paths, second.clear) == ((day, night), (0,))


def test_a_name_without_a_place_and_a_place_without_a_clear_view_are_refused(
    tmp_path: Path,
) -> None:
    photograph(tmp_path, "w0-p0", "night")
    with pytest.raises(UserError, match="w0-p0 was not seen by day or overcast"):
        aligned_scenes(tmp_path, ["day", "overcast"])
    photograph(tmp_path, "", "day")
    with pytest.raises(UserError, match="says no place"):
        aligned_scenes(tmp_path, ["night"])
