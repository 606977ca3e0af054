"""Whether a map holds the pairs that it was made of: are matched keypoints one point in it?

Bundle adjustment drops what does not fit, so that a torn map has small residuals as well. The
matches remember: where two photographs show the same surface and the map has it twice, matched
keypoints belong to two points, as far apart as the map is torn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.groups import group_medians
from vladmap.mapping.judging import KEPT, VERDICTS
from vladmap.mapping.tile_arrays import TileArrays

VIEW_COLUMNS = ["image_id_a", "image_id_b", "inliers", "verdict"]
"""Columns of TWO_VIEWS that `pair_points` needs."""

# A pair is held if so many of its matches are one point in the map, and at least this share of
# those that are points at all. It is torn if its points lie further apart than so many metres, and
# than their depth may be off: this share of the distance to them.
_MIN_SAME = 5
_HELD_SHARE = 0.3
_TORN_SHARE = 0.1
_TORN_M = 0.5
_TORN_DEPTH = 0.05


@dataclass(frozen=True)
class PairPoints:
    """m pairs of photographs and what the map makes of their matches, each (m,).

    `first` and `second` are rows of photographs. Of the matches of which both keypoints are points
    in the map, `same` are one point and `apart` are two; `gap` is the median distance of these two,
    and `depth` the median distance of the second photograph from its point, NaN without any.
    """

    first: Indices
    second: Indices
    same: Indices
    apart: Indices
    gap: Array
    depth: Array

    def held(self) -> Bools:
        """Return which pairs the map bears out, (m,)."""
        enough = self.same >= _HELD_SHARE * (self.same + self.apart)
        return np.asarray((self.same >= _MIN_SAME) & enough)

    def torn(self) -> Bools:
        """Return which pairs the map contradicts, (m,)."""
        both = self.same + self.apart
        few = (both >= 2 * _MIN_SAME) & (self.same <= _TORN_SHARE * both)
        return np.asarray(few & (self.gap > np.maximum(_TORN_M, _TORN_DEPTH * self.depth)))


def pair_points(
    arrays: TileArrays, row_of: Mapping[str, int], two_views: Iterable[pa.Table]
) -> PairPoints:
    """Return what a model makes of pairs.

    `row_of` gives the image_id of each photograph of the model its row in `arrays`; `two_views` are
    tables with VIEW_COLUMNS. Pairs that are not trusted, and those with a photograph outside the
    model, are left out.
    """
    width = 1 + int(arrays.keypoint.max(initial=0))
    key = np.searchsorted(arrays.image, arrays.seen_by) * width + arrays.keypoint
    order = np.argsort(key, kind="stable")
    lookup = key[order], arrays.point[order], width
    ids = pa.array(list(row_of), pa.string())
    rows = np.array(list(row_of.values()), np.int64)
    none = np.zeros(0, np.int64)
    parts = [PairPoints(none, none, none, none, np.zeros(0), np.zeros(0))]
    parts += [_of_table(arrays, lookup, ids, rows, table) for table in two_views]
    names = PairPoints.__dataclass_fields__
    return PairPoints(*(np.concatenate([getattr(each, name) for each in parts]) for name in names))


def _of_table(
    arrays: TileArrays,
    lookup: tuple[Indices, Indices, int],
    ids: pa.Array,
    rows: Indices,
    table: pa.Table,
) -> PairPoints:
    ends = [pc.index_in(table[f"image_id_{end}"], value_set=ids) for end in "ab"]
    inside = pc.and_(pc.is_valid(ends[0]), pc.is_valid(ends[1]))
    # Null until pairs are judged, which counts as not trusted.
    kept = pc.fill_null(pc.equal(table["verdict"], VERDICTS[KEPT]), False)
    table = table.filter(pc.and_(inside, kept))
    first, second = (
        rows[pc.index_in(table[f"image_id_{end}"], value_set=ids).to_numpy().astype(np.int64)]
        for end in "ab"
    )
    lists = table["inliers"].combine_chunks()
    matches = np.asarray(lists.flatten().flatten(), np.int64).reshape(-1, 2)
    pair = np.repeat(np.arange(len(first)), pc.list_value_length(lists).to_numpy())
    points = [
        _points(lookup, end[pair], matches[:, side]) for side, end in enumerate((first, second))
    ]
    known = (points[0] >= 0) & (points[1] >= 0)
    pair, a, b = pair[known], points[0][known], points[1][known]
    same = a == b
    pair, a, b, total = pair[~same], a[~same], b[~same], pair
    gaps = np.linalg.norm(arrays.places[a] - arrays.places[b], axis=1)
    depths = np.linalg.norm(arrays.places[b] - arrays.centres[second[pair]], axis=1)
    apart = np.bincount(pair, minlength=len(first))
    return PairPoints(
        first,
        second,
        np.bincount(total, minlength=len(first)) - apart,
        apart,
        group_medians(gaps, pair, len(first)),
        group_medians(depths, pair, len(first)),
    )


def _points(lookup: tuple[Indices, Indices, int], row: Indices, keypoint: Indices) -> Indices:
    """Return the point of each keypoint, -1 where it is none."""
    keys, point, width = lookup
    if len(keys) == 0:
        return np.full(len(row), -1)
    wanted = np.where(keypoint < width, row * width + keypoint, -1)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, point[at], -1)
