"""Perceptual aliasing: pairs that look alike, are verified, and show different places.

Two-view geometry cannot tell one of two identical facades from the other; GPS can, where they are
further apart than its error. One such pair folds a street onto itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapping.colmap import pycolmap
from mapping.georegister import centres_and_rotations, positions_of
from mapping.matching import TwoView

# Distances are judged where they exceed this many standard deviations of the two positions, and
# this many metres: nearer photographs of one place differ by as much.
_SIGMAS = 4.0
_MIN_METRES = 10.0
_ENOUGH_NEAR = 6

Origin = tuple[float, float, float]


def implausible(
    views: Sequence[TwoView], rows: Sequence[Mapping[str, Any]], origin: Origin, gps_sigma_m: float
) -> NDArray[np.bool_]:
    """Which pairs further apart by GPS than its error are not to be trusted, (n,) bool.

    What two photographs share falls with the distance between them: a pair with more inliers than
    the median of both images' pairs within half its distance shows two places that look alike. And
    where both images have enough nearer pairs, a far one adds little and risks much.
    """
    place = {row["image_id"]: number for number, row in enumerate(rows)}
    first, second = (
        np.array([place[getattr(view, name)] for view in views], np.int64)
        for name in ("image_id_a", "image_id_b")
    )
    inliers = np.array([len(view.inliers) for view in views])
    distance, limit = _gps_distances(rows, first, second, origin, gps_sigma_m)
    flagged = np.zeros(len(views), bool)
    for number in np.flatnonzero(distance > limit):
        ends = (first[number], second[number])
        beside = np.isin(first, ends) | np.isin(second, ends)
        nearer = inliers[beside & (distance < distance[number] / 2)]
        if len(nearer) > 0 and inliers[number] > np.median(nearer):
            flagged[number] = True
    near = distance <= limit
    partners = np.bincount(first[near], minlength=len(rows))
    partners += np.bincount(second[near], minlength=len(rows))
    enough = np.minimum(partners[first], partners[second]) >= _ENOUGH_NEAR
    flagged |= (distance > limit) & enough
    return flagged


def collapsed(
    model: pycolmap.Reconstruction,
    pairs: Sequence[tuple[str, str]],
    by_name: Mapping[str, Mapping[str, Any]],
    origin: Origin,
    gps_sigma_m: float,
) -> list[tuple[str, str]]:
    """Pairs (COLMAP image names) that a georegistered model puts together and GPS apart.

    Only this direction counts: of two true neighbours that a fold tore apart, the map is wrong.
    """
    names, centres, _ = centres_and_rotations(model)
    row_of = {name: number for number, name in enumerate(names)}
    known = [pair for pair in pairs if pair[0] in row_of and pair[1] in row_of]
    if not known:
        return []
    first, second = (np.array([row_of[pair[end]] for pair in known]) for end in (0, 1))
    rows = [by_name[name] for name in names]
    distance, limit = _gps_distances(rows, first, second, origin, gps_sigma_m)
    mapped = np.linalg.norm(centres[first] - centres[second], axis=1)
    wrong = distance - mapped > limit
    return [pair for pair, bad in zip(known, wrong, strict=True) if bad]


def _gps_distances(
    rows: Sequence[Mapping[str, Any]],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    origin: Origin,
    gps_sigma_m: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Horizontal metres by GPS between rows, NaN where unknown, and what its error may make."""
    gps = positions_of(rows, origin, gps_sigma_m)
    offset = gps.enu[first, :2] - gps.enu[second, :2]
    error = np.hypot(gps.sigma[first], gps.sigma[second])
    return np.hypot(offset[:, 0], offset[:, 1]), np.maximum(_SIGMAS * error, _MIN_METRES)
