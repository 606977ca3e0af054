"""Photographs and their verified pairs as arrays: what is known before anything is mapped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from vladmap.geodesy.wgs84 import ecef_on_ellipsoid
from vladmap.mapping.arrays import Array, Bools, Indices

PHOTOGRAPH_COLUMNS = [
    "latitude", "longitude", "gps_accuracy_m", "sequence_id", "sequence_index",
]  # fmt: skip
"""Columns of IMAGES that `photographs_of` needs."""

QUATERNION = ("qw", "qx", "qy", "qz")

STRETCH = 30
"""So many photographs of a drive share the errors of GPS, of its frame and of its scale."""

# Photographs so many places apart in a sequence, or fewer, are close to each other.
_CLOSE_IN_SEQUENCE = 5


@dataclass(frozen=True)
class Photographs:
    """What is known of n photographs before they are mapped.

    `position` (n, 3) earth-centred metres, NaN where unknown; `sigma` (n,) metres, one sigma;
    `sequence` (n,) a number for each sequence, -1 for none; `index` (n,) the place in it.
    """

    position: Array
    sigma: Array
    sequence: Indices
    index: Indices


@dataclass(frozen=True)
class Pairs:
    """m verified pairs: rows of their photographs, counts of inliers, and rotations.

    `rotation` (m, 4) is w, x, y, z of second_from_first, NaN where the geometry has none.
    """

    first: Indices
    second: Indices
    inliers: Array
    rotation: Array


def photographs_of(images: pa.Table, gps_sigma_m: float) -> Photographs:
    """Return the photographs of rows of IMAGES, with PHOTOGRAPH_COLUMNS.

    `gps_sigma_m` is the accuracy, one sigma, of positions that state none.
    """

    def column(name: str) -> Array:
        return np.asarray(images[name].to_numpy(), np.float64)

    latitude, longitude = column("latitude"), column("longitude")
    known = np.isfinite(latitude) & np.isfinite(longitude)
    # At height 0: altitudes are the least accurate part of GPS and of no use here.
    position = np.full((len(latitude), 3), np.nan)
    position[known] = ecef_on_ellipsoid(latitude[known], longitude[known])
    sigma = column("gps_accuracy_m")
    codes = pc.fill_null(images["sequence_id"].combine_chunks().dictionary_encode().indices, -1)
    return Photographs(
        position,
        np.where(np.isfinite(sigma) & (sigma > 0), sigma, gps_sigma_m),
        np.asarray(codes, np.int64),
        np.asarray(pc.fill_null(images["sequence_index"], 0), np.int64),
    )


def pairs_of(two_views: pa.Table, image_ids: pa.Array, inliers: ArrayLike) -> Pairs:
    """Return the pairs of rows of TWO_VIEWS, whose images are all in `image_ids`."""
    first, second = (
        np.asarray(pc.index_in(two_views[f"image_id_{end}"], image_ids), np.int64) for end in "ab"
    )
    rotation = [np.asarray(two_views[name].to_numpy(), np.float64) for name in QUATERNION]
    return Pairs(first, second, np.asarray(inliers, np.float64), np.stack(rotation, axis=1))


def stretches(sequence: Indices, index: Indices, most: int = STRETCH) -> tuple[Indices, Indices]:
    """Return the stretch of each of n photographs, (n,), and the drive of each stretch, (s,).

    A stretch is up to `most` photographs that follow each other in a drive. `sequence` and `index`
    (n,) are those of Photographs. All photographs of no drive are one stretch, of drive -1; stretch
    k + 1 follows stretch k where both are of one drive.
    """
    order = np.lexsort((index, sequence))
    begins = np.flatnonzero(np.diff(sequence[order], prepend=-2))
    place = np.arange(len(order)) - np.repeat(begins, np.diff([*begins, len(order)]))
    key = np.stack([sequence[order], np.where(sequence[order] < 0, 0, place // most)], axis=1)
    of_stretch, number = np.unique(key, axis=0, return_inverse=True)
    stretch = np.zeros(len(order), np.int64)
    stretch[order] = number.reshape(-1)
    return stretch, of_stretch[:, 0]


def are_close_in_sequence(photographs: Photographs, pairs: Pairs) -> Bools:
    """Return which pairs, (m,), are at most five places apart in one sequence."""
    sequence, index = photographs.sequence, photographs.index
    same = (sequence[pairs.first] == sequence[pairs.second]) & (sequence[pairs.first] >= 0)
    return same & (np.abs(index[pairs.first] - index[pairs.second]) <= _CLOSE_IN_SEQUENCE)
