"""How far a map is from the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mapping.geodesy import geodetic_to_enu
from schemas.rejects import UserError

Array = NDArray[np.float64]

_GEODETIC = ("latitude", "longitude", "altitude")
_QUATERNION = ("qw", "qx", "qy", "qz")


def check_map(poses: pa.Table, truth: pa.Table) -> dict[str, Any]:
    """Compare poses (schemas.tables.POSES) with the truth (schemas.tables.TRUTH).

    Returns counts and shares of registered images, for the largest model and for all; and for the
    images of the largest model position errors in metres, in three dimensions, as the map is
    georegistered by GPS and after the best similarity, and rotation errors in degrees after it,
    each as median, p95 and max. Raises UserError where the two have no image in common.
    """
    known = dict(zip(truth["image_id"].to_pylist(), range(truth.num_rows), strict=True))
    rows = np.array([known.get(image, -1) for image in poses["image_id"].to_pylist()], np.int64)
    if not (rows >= 0).any():
        raise UserError("the atlas and the truth have no image in common: is it that collection's?")
    poses, rows = poses.filter(pa.array(rows >= 0)), rows[rows >= 0]
    truth_rows = truth.take(pa.array(rows))
    model = poses["model"].to_numpy()
    sizes = np.bincount(model)
    largest = model == int(np.argmax(sizes))
    result: dict[str, Any] = {
        "images": truth.num_rows,
        "models": int((sizes > 0).sum()),
        "registered": poses.num_rows,
        "registered_in_largest": int(largest.sum()),
        "share": poses.num_rows / truth.num_rows,
        "share_in_largest": int(largest.sum()) / truth.num_rows,
    }
    chosen = pa.array(largest)
    estimated, actual = poses.filter(chosen), truth_rows.filter(chosen)
    origin = [float(actual[name][0].as_py()) for name in _GEODETIC]
    source, target = (
        geodetic_to_enu(_matrix(table, _GEODETIC), origin) for table in (estimated, actual)
    )
    placed = np.isfinite(source).all(axis=1)
    if placed.sum() < 3:
        return result
    source, target = source[placed], target[placed]
    result["by_gps_m"] = _spread(np.linalg.norm(source - target, axis=1))
    scale, rotation, shift = best_similarity(source, target)
    aligned = scale * source @ rotation.T + shift
    result["aligned_m"] = _spread(np.linalg.norm(aligned - target, axis=1))
    camera_from_map = rotations(_matrix(estimated, _QUATERNION)[placed])
    camera_from_truth = rotations(_matrix(actual, _QUATERNION)[placed])
    # camera_from_map undoes the alignment before it looks: camera <- map <- truth.
    error = camera_from_map @ rotation.T @ camera_from_truth.transpose(0, 2, 1)
    result["rotation_deg"] = _spread(_angles(error))
    return result


def _matrix(table: pa.Table, names: tuple[str, ...]) -> Array:
    return np.stack([table[name].to_numpy().astype(np.float64) for name in names], axis=1)


def _spread(errors: Array) -> dict[str, float]:
    return {
        "median": float(np.median(errors)),
        "p95": float(np.quantile(errors, 0.95)),
        "max": float(errors.max()),
    }


def _angles(rotation: Array) -> Array:
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
        if key in result:
            values = result[key]
            lines.append(
                f"{title} median {values['median']:.3f} {unit}, "
                f"95 % {values['p95']:.3f} {unit}, max {values['max']:.3f} {unit}"
            )
        else:
            lines.append(f"{title} not known: the largest model has no place on Earth")
    return "\n".join(lines)
