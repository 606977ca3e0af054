"""Comparing a map with the truth: figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.mapping.check import best_similarity, check_map, format_check, rotations
from vladmap.schemas import tables, truth_tables
from vladmap.schemas.rejects import UserError

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
    places = np.vstack([PLACES, [[9.0, 9, 9]]])[: len(names)]
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
        schema=truth_tables.TRUTH,
    )  # fmt: skip


def test_a_map_moved_by_five_metres_is_five_metres_off_by_gps_and_exact_aligned() -> None:
    result = check_map(poses(PLACES + [3.0, 4.0, 0.0]), truth())
    assert result["by_gps_m"]["median"] == pytest.approx(5.0, abs=1e-5)
    assert result["aligned_m"]["max"] == pytest.approx(0.0, abs=1e-5)
    assert result["rotation_deg"]["max"] == pytest.approx(0.0, abs=1e-3)
    assert result["share"] == pytest.approx(5 / 6)


def test_every_photograph_of_every_model_counts_and_those_far_off_are_named() -> None:
    """Issue 19, 0: a median of the largest model hides a small one that lies elsewhere."""
    large = poses(PLACES)
    moved = PLACES.copy()
    moved[4] += [0.0, 0.0, 60.0]
    small = poses(moved, "ABCDE").to_pylist()
    others = truth("abcde").to_pylist()
    renamed = [{**row, "image_id": row["image_id"].upper()} for row in others]
    others_model = [{**row, "model": 1} for row in small]
    both = pa.Table.from_pylist([*large.to_pylist(), *others_model], schema=tables.POSES)
    whole = pa.Table.from_pylist([*others, *renamed], schema=truth_tables.TRUTH)
    result = check_map(both, whole)
    assert (result["registered"], result["registered_in_largest"]) == (10, 5)
    assert result["by_gps_m"]["images"] == result["aligned_m"]["images"] == 10
    assert result["by_gps_m"]["max"] == pytest.approx(60.0, abs=1e-3)
    assert (result["by_gps_m"]["over_1_m"], result["by_gps_m"]["over_5_m"]) == (1, 1)
    assert result["aligned_m"]["over_5_m"] >= 1, "one of five bends the model's alignment"
    assert result["worst"][0]["model"] == 1
    text = format_check(result)
    assert "1 over 5 m" in text
    assert "far off" in text


def test_a_truth_of_another_collection_is_refused() -> None:
    with pytest.raises(UserError, match="no image in common"):
        check_map(poses(PLACES, "vwxyz"), truth())


def test_best_similarity_finds_scale_rotation_and_shift() -> None:
    turn = rotations(np.array([[np.cos(0.3), 0, 0, np.sin(0.3)]]))[0]
    scale, rotation, shift = best_similarity(PLACES, 2.5 * PLACES @ turn.T + [1, 2, 3])
    assert scale == pytest.approx(2.5)
    np.testing.assert_allclose(rotation, turn, atol=1e-12)
    np.testing.assert_allclose(shift, [1, 2, 3], atol=1e-9)
