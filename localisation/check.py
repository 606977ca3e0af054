"""How far localised photographs are from the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vladmap.geodesy.wgs84 import geodetic_to_enu
from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.check import angles_deg, best_similarity, rotations
from vladmap.schemas.localisation_tables import LocalisationStatus
from vladmap.schemas.rejects import UserError

WITHIN = ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
"""Metres and degrees within which a pose is right: those of the Aachen Day-Night benchmark
(Sattler et al., CVPR 2018)."""

_GEODETIC = ("latitude", "longitude", "altitude")
_QUATERNION = ("qw", "qx", "qy", "qz")


def check_localised(localised: pa.Table, poses: pa.Table, truth: pa.Table) -> dict[str, Any]:
    """Compare localisations with the truth, by GPS and up to the map's own error.

    `localised` has the schema LOCALISATIONS, `poses` is that of the atlas's map, `truth` has poses
    of the queries (schemas.truth_tables.TRUTH); a photograph is that whose path its uri ends with.
    Where the truth has three photographs or more of the map, too, the map is first brought to them
    by the best similarity of each model: what is left is the error of localisation, and `aligned`
    says so.

    Returns `queries` that the truth knows, how many have each status, the median errors, `within`
    with the share of all queries that lie within each of WITHIN, where a query without a pose is a
    miss, and `false`: poses that are not even within the widest. Raises UserError where the truth
    has none of the queries.
    """
    rows = rows_of(localised["uri"].to_pylist(), truth["path"].to_pylist())
    if not (rows >= 0).any():
        raise UserError(
            "the truth has none of these photographs: no uri ends with one of its paths"
        )
    localised, rows = localised.filter(pa.array(rows >= 0)), rows[rows >= 0]
    true = truth.take(pa.array(rows))
    origin = [float(true[name][0].as_py()) for name in _GEODETIC]
    found, wanted = (
        geodetic_to_enu(_matrix(each, _GEODETIC), origin) for each in (localised, true)
    )
    camera_from_map, camera_from_truth = (
        rotations(_matrix(each, _QUATERNION)) for each in (localised, true)
    )
    model = localised["map_model"].to_numpy(zero_copy_only=False).astype(float)
    aligned = False
    for number, (scale, turn, shift) in _alignments(poses, truth, origin).items():
        members = model == number
        found[members] = scale * found[members] @ turn.T + shift
        camera_from_map[members] = camera_from_map[members] @ turn.T
        aligned |= bool(members.any())
    off_m = np.linalg.norm(found - wanted, axis=1)
    off_deg = angles_deg(camera_from_map @ camera_from_truth.transpose(0, 2, 1))
    told = np.isfinite(off_m)
    right = [told & (off_m <= metres) & (off_deg <= degrees) for metres, degrees in WITHIN]
    status = Counter(localised["status"].to_pylist())
    return {
        "queries": len(rows),
        **{each.value: status.get(each.value, 0) for each in LocalisationStatus},
        "aligned": aligned,
        "median_m": float(np.median(off_m[told])) if told.any() else None,
        "median_deg": float(np.median(off_deg[told])) if told.any() else None,
        "max_m": float(off_m[told].max()) if told.any() else None,
        "within": [
            {"metres": metres, "degrees": degrees, "share": float(each.mean())}
            for (metres, degrees), each in zip(WITHIN, right, strict=True)
        ],
        "false": int((told & ~right[-1]).sum()),
    }


def rows_of(uris: Sequence[str], paths: Sequence[str]) -> Indices:
    """The row of the path that each uri ends with, the longest where several do; -1 for none."""
    row_of = {path: row for row, path in enumerate(paths)}
    return np.array([next((row_of[t] for t in _tails(u) if t in row_of), -1) for u in uris], int)


def _tails(uri: str) -> list[str]:
    """The uri, and what follows each of its slashes, the longest first."""
    parts = uri.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _alignments(
    poses: pa.Table, truth: pa.Table, origin: list[float]
) -> dict[int, tuple[float, Array, Array]]:
    """For each model of the map the similarity that brings it to the truth, where that is known."""
    rows = rows_of(poses["uri"].to_pylist(), truth["path"].to_pylist())
    source = geodetic_to_enu(_matrix(poses, _GEODETIC), origin)
    known = (rows >= 0) & np.isfinite(source).all(axis=1)
    if not known.any():
        return {}
    target = geodetic_to_enu(_matrix(truth.take(pa.array(rows[known])), _GEODETIC), origin)
    model, source = poses["model"].to_numpy()[known], source[known]
    return {
        int(number): best_similarity(source[model == number], target[model == number])
        for number in np.unique(model)
        if (model == number).sum() >= 3
    }


def format_localised(result: dict[str, Any]) -> list[str]:
    """The comparison in words, a line a figure."""
    lines = [
        f"{result['queries']:,} photographs of which the truth is known: {result['pose']:,} pose, "
        f"{result['place']:,} place, {result['unknown']:,} unknown"
    ]
    if result["median_m"] is None:
        return lines
    how = "up to the map's own error" if result["aligned"] else "by GPS: the map's error is in it"
    lines.append(
        f"off by {result['median_m']:.3f} m, {result['median_deg']:.3f} degrees at the median, "
        f"{result['max_m']:.3f} m at most ({how})"
    )
    lines += [
        f"within {each['metres']:g} m and {each['degrees']:g} degrees: {each['share']:.1%}"
        for each in result["within"]
    ]
    wide_m, wide_deg = WITHIN[-1]
    lines.append(f"false poses, over {wide_m:g} m or {wide_deg:g} degrees off: {result['false']}")
    return lines


def _matrix(table: pa.Table, names: Sequence[str]) -> Array:
    """Columns (n, k), null as NaN."""
    return np.stack(
        [table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in names], axis=1
    )
