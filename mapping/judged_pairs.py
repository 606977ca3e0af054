"""All images and verified pairs of a collection, judged together and cut into tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.judging import (
    KEPT,
    Judgement,
    judge,
    judge_by_fits,
    judge_by_loops,
    judged_table,
)
from vladmap.mapping.photographs import (
    PHOTOGRAPH_COLUMNS,
    QUATERNION,
    Pairs,
    pairs_of,
    photographs_of,
)
from vladmap.mapping.tile_growth import TilePlan, grow_tiles
from vladmap.mapping.tiles import Tile
from vladmap.mapping.two_view import inlier_counts
from vladmap.schemas import tables

Names = NDArray[np.object_]

IMAGE_COLUMNS = ["image_id", *PHOTOGRAPH_COLUMNS, "shard", "camera"]
PAIR_COLUMNS = ["image_id_a", "image_id_b", "configuration", "inliers", *QUATERNION]


@dataclass(frozen=True)
class JudgedPairs:
    """n images, sorted by id, and m verified pairs with their verdicts.

    `latitude` and `longitude` (n,) are degrees, NaN where unknown; `shard` and `camera` (n,) name
    the shard and the camera of each image, `pair_shard` (m,) the shard of each pair. `sequence`
    (n,) is a number for the drive of each image, -1 for none, and `index` (n,) its place in it.
    """

    image_ids: Names
    latitude: Array
    longitude: Array
    shard: Names
    camera: Names
    sequence: Indices
    index: Indices
    pairs: Pairs
    pair_shard: Names
    judgement: Judgement

    def trusted(self) -> NDArray[np.bool_]:
        """Return which pairs are trusted, (m,)."""
        return self.judgement.verdict == KEPT

    def table(self, rows: Indices | None = None) -> pa.Table:
        """Return the pairs, or some rows of them, as a table of mapping.judging.JUDGED."""
        return judged_table(self.image_ids.tolist(), self.pairs, self.judgement, rows)

    def tiles(self, max_images: int, before: Sequence[Tile] = ()) -> TilePlan:
        """Return the tiles of about `max_images` that trusted pairs connect.

        Those of a plan `before` stay as far as they can; without one, none has more images.
        """
        trusted = self.trusted()
        return grow_tiles(
            before,
            self.image_ids.tolist(),
            self.latitude,
            self.longitude,
            self.pairs.first[trusted],
            self.pairs.second[trusted],
            self.pairs.inliers[trusted],
            max_images=max_images,
        )

    def rows_of(self, tile: Tile) -> tuple[Indices, Indices]:
        """Return the rows of a tile's images, and those of the pairs between them."""
        members = np.searchsorted(self.image_ids, np.array(tile.image_ids, dtype=object))
        inside = np.zeros(len(self.image_ids), bool)
        inside[members] = True
        between = inside[self.pairs.first] & inside[self.pairs.second]
        return members, np.flatnonzero(between)


def judge_collection(
    images: pa.Table,
    two_views: Iterable[tuple[str, pa.Table]],
    gps_sigma_m: float,
    fits: pa.Table | None = None,
    loops: pa.Table | None = None,
) -> JudgedPairs:
    """Judge the verified pairs of a collection.

    `images` has IMAGE_COLUMNS; `two_views` yields the name and the table, with PAIR_COLUMNS, of
    each shard of pairs. `gps_sigma_m` is the accuracy of positions that state none. `fits` are
    rows of view_graph.table.FITS, `loops` of view_graph.graph_tables.LOOP_FITS: what is known of
    how pairs fit the pose graph, and loops each other. Memory is some 200 bytes an image and 100 a
    pair: two gigabytes for a million images of twenty pairs each.
    """
    images = images.sort_by("image_id").combine_chunks()
    ids = images["image_id"].combine_chunks()
    parts, counts, shards = [], [], []
    for name, table in two_views:
        count = inlier_counts(table)
        parts.append(table.drop_columns(["inliers"]).filter(pa.array(count > 0)))
        counts.append(count[count > 0])
        shards.extend([name] * len(counts[-1]))
    empty = tables.TWO_VIEWS.empty_table().select(PAIR_COLUMNS).drop_columns(["inliers"])
    views = pa.concat_tables([empty, *(part.cast(empty.schema) for part in parts)])
    pairs = pairs_of(views, ids, np.concatenate([np.zeros(0), *counts]))
    latitude, longitude = (
        images[name].to_numpy().astype(np.float64) for name in ("latitude", "longitude")
    )
    shard, camera = (np.array(images[name].to_pylist(), object) for name in ("shard", "camera"))
    photographs = photographs_of(images, gps_sigma_m)
    judgement = judge(photographs, pairs)
    if fits is not None:
        judgement = judge_by_fits(judgement, pairs, ids, fits)
    if loops is not None:
        judgement = judge_by_loops(judgement, pairs, ids, loops, fits)
    return JudgedPairs(
        np.array(ids.to_pylist(), dtype=object),
        latitude,
        longitude,
        shard,
        camera,
        photographs.sequence,
        photographs.index,
        pairs,
        np.array(shards, dtype=object),
        judgement,
    )
