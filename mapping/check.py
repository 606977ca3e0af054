"""How far a map is from the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from vladmap.geodesy.wgs84 import geodetic_to_enu
from vladmap.mapping.arrays import Array
from vladmap.schemas.rejects import UserError

_GEODETIC = ("latitude", "longitude", "altitude")
_QUATERNION = ("qw", "qx", "qy", "qz")

OFF_M, FAR_OFF_M = 1.0, 5.0
"""Photographs further from the truth than these, in metres, are counted."""
WORST_SHOWN = 10


def check_map(poses: pa.Table, truth: pa.Table) -> dict[str, Any]:
    """Compare poses (schemas.tables.POSES) with the truth (schemas.truth_tables.TRUTH).

    Returns counts and shares of registered images, for the largest model and for all; and over the
    images of all models that have a place on Earth position errors in metres, in three dimensions,
    as the map is georegistered by GPS and after the best similarity of each model, and rotation
    errors in degrees after it. Each is a dict: median, p95, max, and `images`, how many were
    compared; positions also how many are over 1 and over 5 metres off. `worst` names the images
    over 5 m off after alignment, or by GPS where their model is too small for it, at most
    WORST_SHOWN of them. Raises UserError where the two have no image in common.
    """
    known = dict(zip(truth["image_id"].to_pylist(), range(truth.num_rows), strict=True))
    rows = np.array([known.get(image, -1) for image in poses["image_id"].to_pylist()], np.int64)
    if not (rows >= 0).any():
        raise UserError("the atlas and the truth have no image in common: is it that collection's?")
    poses, rows = poses.filter(pa.array(rows >= 0)), rows[rows >= 0]
    truth_rows = truth.take(pa.array(rows))
    model = poses["model"].to_numpy()
    sizes = np.bincount(model)
    largest = int(sizes.max())
    result: dict[str, Any] = {
        "images": truth.num_rows,
        "models": int((sizes > 0).sum()),
        "registered": poses.num_rows,
        "registered_in_largest": largest,
        "share": poses.num_rows / truth.num_rows,
        "share_in_largest": largest / truth.num_rows,
    }
    origin = [float(truth_rows[name][0].as_py()) for name in _GEODETIC]
    source, target = (
        geodetic_to_enu(_matrix(table, _GEODETIC), origin) for table in (poses, truth_rows)
    )
    placed = np.isfinite(source).all(axis=1)
    if not placed.any():
        return result
    by_gps = np.linalg.norm(source - target, axis=1)
    aligned, turned = np.full(len(source), np.nan), np.full(len(source), np.nan)
    for number in np.unique(model[placed]):
        members = placed & (model == number)
        if members.sum() < 3:
            continue
        scale, rotation, shift = best_similarity(source[members], target[members])
        moved = scale * source[members] @ rotation.T + shift
        aligned[members] = np.linalg.norm(moved - target[members], axis=1)
        camera_from_map = rotations(_matrix(poses, _QUATERNION)[members])
        camera_from_truth = rotations(_matrix(truth_rows, _QUATERNION)[members])
        # camera_from_map undoes the alignment before it looks: camera <- map <- truth.
        error = camera_from_map @ rotation.T @ camera_from_truth.transpose(0, 2, 1)
        turned[members] = angles_deg(error)
    result["by_gps_m"] = _spread(by_gps[placed], metres=True)
    if np.isfinite(aligned).any():
        result["aligned_m"] = _spread(aligned[np.isfinite(aligned)], metres=True)
        # Unknown where the truth has no rotations.
        result["rotation_deg"] = _spread(turned[np.isfinite(aligned)])
    error = np.where(np.isfinite(aligned), aligned, by_gps)
    order = np.argsort(-np.nan_to_num(error, nan=-1.0), kind="stable")
    uris = poses["uri"].to_pylist()
    result["worst"] = [
        {"uri": uris[row], "model": int(model[row]), "error_m": float(error[row])}
        for row in order[:WORST_SHOWN]
        if error[row] > FAR_OFF_M
    ]
    return result


def _matrix(table: pa.Table, names: tuple[str, ...]) -> Array:
    return np.stack([table[name].to_numpy().astype(np.float64) for name in names], axis=1)


def _spread(errors: Array, *, metres: bool = False) -> dict[str, float]:
    figures = {
        "images": len(errors),
        "median": float(np.median(errors)),
        "p95": float(np.quantile(errors, 0.95)),
        "max": float(errors.max()),
    }
    if metres:
        figures["over_1_m"] = int((errors > OFF_M).sum())
        figures["over_5_m"] = int((errors > FAR_OFF_M).sum())
    return figures


def angles_deg(rotation: Array) -> Array:
    """Angles in degrees of (n, 3, 3) rotations; exact near zero, where arccos is not."""
    skew = rotation - rotation.transpose(0, 2, 1)
    sine = np.linalg.norm(skew[:, [2, 0, 1], [1, 2, 0]], axis=1) / 2
    cosine = (np.trace(rotation, axis1=1, axis2=2) - 1) / 2
    return np.degrees(np.arctan2(sine, cosine))


def rotations(quaternions: Array) -> Array:
    """(n, 3, 3) rotation matrices of (n, 4) unit quaternions w, x, y, z."""
    w, x, y, z = quaternions.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def best_similarity(source: Array, target: Array) -> tuple[float, Array, Array]:
    """Scale, rotation (3, 3) and shift (3,) that bring (n, 3) points nearest to others.

    Least squares in closed form (Umeyama, PAMI 1991): target ~ scale * rotation @ source + shift.
    """
    mean_source, mean_target = source.mean(axis=0), target.mean(axis=0)
    a, b = source - mean_source, target - mean_target
    u, singular, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    variance = (a * a).sum() / len(a)
    scale = float((singular * np.diag(sign)).sum() / variance) if variance > 0 else 1.0
    return scale, rotation, mean_target - scale * rotation @ mean_source


def format_check(result: dict[str, Any]) -> str:
    """The comparison in words, a line a figure."""
    lines = [
        f"images in the truth     {result['images']}",
        f"registered              {result['registered']} ({result['share']:.1%}) "
        f"in {result['models']} models",
        f"in the largest model    {result['registered_in_largest']} "
        f"({result['share_in_largest']:.1%})",
    ]
    titles = {
        "by_gps_m": ("position error, by GPS ", "m"),
        "aligned_m": ("position error, aligned", "m"),
        "rotation_deg": ("rotation error, aligned", "deg"),
    }
    for key, (title, unit) in titles.items():
        if key not in result:
            lines.append(f"{title} not known: no model has a place on Earth, or enough images")
            continue
        values = result[key]
        over = ""
        if "over_1_m" in values:
            over = f", {values['over_1_m']} over {OFF_M:g} m, {values['over_5_m']} over "
            over += f"{FAR_OFF_M:g} m"
        lines.append(
            f"{title} median {values['median']:.3f} {unit}, "
            f"95 % {values['p95']:.3f} {unit}, max {values['max']:.3f} {unit}"
            + over
            + f", of {values['images']} images"
        )
    lines.extend(
        f"far off                 {each['error_m']:.1f} m, model {each['model']}: {each['uri']}"
        for each in result.get("worst", [])
    )
    return "\n".join(lines)
