"""Localisations against a truth, with errors that are put in by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.transform import Rotation

from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.localisation.check import check_localised, format_localised, rows_of
from vladmap.localisation.table import localisations_table
from vladmap.schemas.localisation_tables import LOCALISATIONS
from vladmap.schemas.rejects import UserError

ORIGIN = (48.0, 16.0, 200.0)
MAPPED = np.array([[0.0, 0, 0], [30, 0, 2], [0, 30, 0], [30, 30, 1]])
QUERIES = np.array([[5.0, 5, 0], [10, 20, 0], [20, 10, 0], [25, 25, 0]])


def placed(points: np.ndarray) -> list[dict[str, float]]:
    names = ("latitude", "longitude", "altitude")
    geodetic = enu_to_geodetic(points, ORIGIN).tolist()
    return [dict(zip(names, each, strict=True)) for each in geodetic]


def turned(degrees: float) -> dict[str, float]:
    x, y, z, w = Rotation.from_euler("z", degrees, degrees=True).as_quat()
    return {"qw": w, "qx": x, "qy": y, "qz": z}


def truth() -> pa.Table:
    points = np.concatenate([MAPPED, QUERIES])
    names = [f"map/{n}.jpg" for n in range(4)] + [f"drive/{n}.jpg" for n in range(4)]
    rows = zip(names, placed(points), strict=True)
    return pa.Table.from_pylist([{"path": name, **place, **turned(0)} for name, place in rows])


def poses(shift: np.ndarray) -> pa.Table:
    rows = enumerate(placed(MAPPED + shift))
    return pa.Table.from_pylist(
        [{"uri": f"/photos/map/{n}.jpg", "model": 0, **place, **turned(0)} for n, place in rows]
    )


def localised(errors: np.ndarray, turns: list[float], shift: np.ndarray) -> pa.Table:
    """Poses of the first three queries; the fourth is unknown."""
    nothing: dict[str, Any] = dict.fromkeys(LOCALISATIONS.names)
    rows = [
        nothing
        | {
            **{
                "image_id": str(n),
                "name": f"{n}.jpg",
                "uri": f"/photos/drive/{n}.jpg",
                "status": "pose",
            },
            **{"inliers": 50, "matched": 60, "map_model": 0},
            **place,
            **turned(turn),
        }
        for n, (place, turn) in enumerate(
            zip(placed(QUERIES[:3] + shift + errors), turns, strict=True)
        )
    ]
    unknown = {"image_id": "3", "name": "3.jpg", "uri": "/photos/drive/3.jpg", "status": "unknown"}
    return localisations_table([*rows, nothing | unknown | {"inliers": 0, "matched": 0}])


ERRORS = np.array([[0.1, 0, 0], [0, 0.4, 0], [0, 0, 9.0]])
BIAS = np.array([3.0, -1.0, 0.5])


def test_shares_are_of_all_queries_and_the_shift_of_the_map_is_taken_out() -> None:
    found = check_localised(localised(ERRORS, [1.0, 3.0, 0.0], BIAS), poses(BIAS), truth())
    assert (found["queries"], found["pose"], found["unknown"]) == (4, 3, 1)
    assert [each["share"] for each in found["within"]] == [0.25, 0.5, 0.5]
    assert found["false"] == 1
    assert found["aligned"]
    assert found["median_m"] == pytest.approx(0.4, abs=1e-4)
    assert found["max_m"] == pytest.approx(9.0, abs=1e-3)
    assert found["median_deg"] == pytest.approx(1.0, abs=1e-4)
    assert "false poses, over 5 m or 10 degrees off: 1" in format_localised(found)


def test_without_the_maps_own_truth_its_error_is_in_the_figures() -> None:
    queries_alone = truth().slice(4)
    found = check_localised(localised(ERRORS * 0, [0.0] * 3, BIAS), poses(BIAS), queries_alone)
    assert not found["aligned"]
    assert found["median_m"] == pytest.approx(np.linalg.norm(BIAS), abs=1e-3)
    assert [each["share"] for each in found["within"]] == [0.0, 0.0, 0.75]


def test_a_photograph_is_that_whose_path_its_uri_ends_with() -> None:
    """Names alone would not do: those of each drive may begin anew."""
    paths = ["a/1.jpg", "b/1.jpg", "1.jpg"]
    uris = ["/photos/b/1.jpg", "gs://bucket/x/a/1.jpg", "/photos/c/1.jpg", "1.jpg", "/b/2.jpg"]
    assert rows_of(uris, paths).tolist() == [1, 0, 2, 2, -1]
    with pytest.raises(UserError, match="none of these"):
        check_localised(localised(ERRORS, [0.0] * 3, BIAS), poses(BIAS), truth().slice(0, 4))
