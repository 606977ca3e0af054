"""Comparing a map with the truth: figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mapping.check import best_similarity, check_map, rotations
from mapping.geodesy import enu_to_geodetic
from schemas import tables
from schemas.rejects import UserError

ORIGIN = (48.0, 16.0, 100.0)
PLACES = np.array([[0.0, 0, 0], [10, 0, 0], [10, 20, 0], [0, 20, 5], [5, 5, 1]])


def poses(places: np.ndarray, names: str = "abcde") -> pa.Table:
    geodetic = enu_to_geodetic(places, ORIGIN)
    return pa.Table.from_pylist(
        [
            {
                "image_id": name,
                "uri": name,
                "model": 0,
                "points": 1,
                "latitude": lat,
                "longitude": lon,
                "altitude": alt,
                "qw": 1.0,
                "qx": 0.0,
                "qy": 0.0,
                "qz": 0.0,
                "reprojection_error_px": 0.5,
                "geometry": None,
            }
            for name, (lat, lon, alt) in zip(names, geodetic.tolist(), strict=True)
        ],
        schema=tables.POSES,
    )


def truth(names: str = "abcdef") -> pa.Table:
    places = np.vstack([PLACES, [[9.0, 9, 9]]])
    geodetic = enu_to_geodetic(places, ORIGIN)
    return pa.Table.from_pylist(
        [
            {
                "image_id": name, "path": name, "latitude": lat, "longitude": lon, "altitude": alt,
                "east": 0.0, "north": 0.0, "up": 0.0, "qw": 1.0, "qx": 0.0, "qy": 0.0, "qz": 0.0,
                "camera_model": "PINHOLE", "width": 4, "height": 3,
                "fx": 1.0, "fy": 1.0, "cx": 2.0, "cy": 1.5,
            }
            for name, (lat, lon, alt) in zip(names, geodetic.tolist(), strict=True)
        ],
        schema=tables.TRUTH,
    )  # fmt: skip


def test_a_map_moved_by_five_metres_is_five_metres_off_by_gps_and_exact_aligned() -> None:
    result = check_map(poses(PLACES + [3.0, 4.0, 0.0]), truth())
    assert result["by_gps_m"]["median"] == pytest.approx(5.0, abs=1e-5)
    assert result["aligned_m"]["max"] == pytest.approx(0.0, abs=1e-5)
    assert result["rotation_deg"]["max"] == pytest.approx(0.0, abs=1e-3)
    assert result["share"] == pytest.approx(5 / 6)


def test_a_truth_of_another_collection_is_refused() -> None:
    with pytest.raises(UserError, match="no image in common"):
        check_map(poses(PLACES, "vwxyz"), truth())


def test_best_similarity_finds_scale_rotation_and_shift() -> None:
    turn = rotations(np.array([[np.cos(0.3), 0, 0, np.sin(0.3)]]))[0]
    scale, rotation, shift = best_similarity(PLACES, 2.5 * PLACES @ turn.T + [1, 2, 3])
    assert scale == pytest.approx(2.5)
    np.testing.assert_allclose(rotation, turn, atol=1e-12)
    np.testing.assert_allclose(shift, [1, 2, 3], atol=1e-9)
