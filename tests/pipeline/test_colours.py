"""The merge stage colours the points of the map from photographs as they are seen upright."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.mapping.test_colours import picture
from tests.mapping.test_tile_merge import name_of
from tests.photos.bad_photos import exif_block
from tests.pipeline.test_unregistered import made
from vladmap.features.colmap import pycolmap
from vladmap.photos.ids import content_hash
from vladmap.pipeline import report_data
from vladmap.reporting.report import render

pytestmark = pytest.mark.medium

ORIENTATION = 274
# What undoes each EXIF orientation: the stored pixels of an upright picture.
STORED = {
    1: lambda upright: upright,
    3: lambda upright: upright[::-1, ::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def write_photographs(folder: Path, count: int) -> dict[str, str]:
    """Of smooth colours, stored in every orientation in turn; their hashes by name."""
    folder.mkdir()
    hashes = {}
    for number in range(count):
        orientation = list(STORED)[number % len(STORED)]
        pixels = np.ascontiguousarray(STORED[orientation](picture(number)))
        path = folder / name_of(number)
        exif = exif_block(base={ORIENTATION: orientation})
        Image.fromarray(pixels).save(path, "JPEG", quality=98, subsampling=0, exif=exif)
        hashes[path.name] = content_hash(path.read_bytes())
    return hashes


def colours(root: Path) -> dict[int, np.ndarray]:
    model = pycolmap.Reconstruction(str(root / "model" / "0"))
    return {number: np.array(point.color, int) for number, point in model.points3D.items()}


def test_points_are_coloured_from_upright_pixels_whatever_is_stored(tmp_path: Path) -> None:
    """Issue 19, 13 and 4: COLMAP's own colours would come from pixels that lie on their side."""
    hashes = write_photographs(tmp_path / "photos", 8)
    run = made(
        tmp_path / "atlas", {"left": (range(8), {"unregistered": {}})}, str(tmp_path / "photos"),
        hashes,
    )  # fmt: skip
    colour_of = colours(tmp_path / "atlas")
    model = pycolmap.Reconstruction(str(tmp_path / "atlas" / "model" / "0"))
    wanted = pycolmap.Reconstruction(model)
    upright = tmp_path / "upright"
    upright.mkdir()
    for number in range(8):
        Image.fromarray(picture(number)).save(upright / name_of(number), format="PNG")
    wanted.extract_colors_for_all_images(str(upright))
    difference = np.array(
        [np.abs(colour_of[n] - wanted.point3D(n).color).max() for n in sorted(colour_of)]
    )
    assert np.quantile(difference, 0.9) <= 4  # JPEG; COLMAP passes over what is at the border
    assert not any((colour == 0).all() for colour in colour_of.values())
    report = json.loads((tmp_path / "atlas" / "model" / "merge.json").read_text())["colours"]
    assert report == {"points_without": 0, "unreadable": {}}
    assert "could not be read" not in report_data.summary(run)


def test_a_photograph_that_is_gone_is_counted_and_said(tmp_path: Path) -> None:
    """Issue 19, 13: what cannot be read again is named, and costs the map nothing."""
    hashes = write_photographs(tmp_path / "photos", 8)
    (tmp_path / "photos" / name_of(3)).unlink()
    (tmp_path / "photos" / name_of(4)).write_bytes(b"something else")
    run = made(
        tmp_path / "atlas", {"left": (range(8), {"unregistered": {}})}, str(tmp_path / "photos"),
        hashes,
    )  # fmt: skip
    colour_of = colours(tmp_path / "atlas")
    black = sum((colour == 0).all() for colour in colour_of.values())
    report = json.loads((tmp_path / "atlas" / "model" / "merge.json").read_text())["colours"]
    assert sorted(report["unreadable"]) == [name_of(3), name_of(4)]
    assert report["unreadable"][name_of(3)].startswith("missing")
    assert report["points_without"] == black < len(colour_of) / 2
    summary = report_data.summary(run)
    assert "2 photographs could not be read again" in summary
    assert f"{name_of(3)} (missing" in summary
    assert "2 photographs could not be read again" in render(report_data.gather(run))
