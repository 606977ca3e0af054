"""What one tile is mapped from: rows of the atlas's tables, shard by shard, cut to its images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.judging import trusted_only
from vladmap.mapping.tiles import Tile
from vladmap.schemas import tables

MEMBERS = pa.schema(
    [
        ("image_id", pa.string()),
        ("core", pa.bool_()),
        ("sequence_id", pa.string()),
        ("sequence_index", pa.int64()),
    ]
)
"""Images of a tile; those outside of its core are there to overlap with other tiles. `sequence_id`
is a number that the images of one drive share, null for none."""


# Distances of photographs by GPS that differ by less, in metres, are the same to a map.
_SAME_M = 1.0
# Pairs that are trusted only now have a tile mapped again if they are a larger share of its pairs.
_MOST_GAINED = 0.01


def map_alike(before: pa.Table, now: pa.Table) -> bool:
    """Whether the map of a tile stands with another table of JUDGED than it was made with.

    All pairs that the map rests on must still be trusted, and the same of them further apart than
    GPS explains, at distances that differ by less than a metre. Pairs of the same photographs that
    are trusted only now, and took no part in it, may be one in a hundred. Which of several tests an
    untrusted pair failed, and the rest of what is known of it, moves no map.
    """
    before, now = trusted_only(before), trusted_only(now)
    rested = before.join(now, ["image_id_a", "image_id_b"], join_type="inner", right_suffix="_now")
    lost = before.num_rows - rested.num_rows
    if lost or now.num_rows - before.num_rows > _MOST_GAINED * before.num_rows:
        return False
    ours, theirs = (_distances(rested, suffix) for suffix in ("", "_now"))
    # A distance that is not known compares as false.
    if not np.array_equal(ours[0] > ours[1], theirs[0] > theirs[1]):
        return False
    alike = np.abs(ours - theirs) < _SAME_M
    return bool((alike | (np.isnan(ours) & np.isnan(theirs))).all())


def _distances(judged: pa.Table, suffix: str) -> Array:
    """Distances and their limits, (2, m), NaN where they are not known."""
    columns = (judged[f"{name}{suffix}"].to_numpy() for name in ("distance_m", "limit_m"))
    return np.stack([column.astype(np.float64) for column in columns])


def members_table(tile: Tile, sequence: Indices, index: Indices) -> pa.Table:
    """Return the images of a tile as a table of MEMBERS.

    `sequence` and `index` (n,) are a number for the drive of each image, -1 for none, and its place
    in it. Drives are numbered anew: a tile does not depend on the drives of other tiles.
    """
    _, number = np.unique(sequence, return_inverse=True)
    drives = [
        None if drive < 0 else str(own)
        for drive, own in zip(sequence.tolist(), number.reshape(-1).tolist(), strict=True)
    ]
    return pa.Table.from_arrays(
        [
            pa.array(tile.image_ids, pa.string()),
            pa.array(tile.core, pa.bool_()),
            pa.array(drives, pa.string()),
            pa.array(index, pa.int64()),
        ],
        schema=MEMBERS,
    )


def images_among(images: Iterable[pa.Table], image_ids: pa.Array) -> pa.Table:
    """Return the rows of tables of IMAGES whose image_id is among `image_ids`.

    `uri` becomes the image's name relative to the collection: the name in COLMAP's models, which
    stays valid when the collection moves.
    """
    table = pa.concat_tables(
        part.filter(pc.is_in(part["image_id"], value_set=image_ids)) for part in images
    )
    place = table.schema.get_field_index("uri")
    return table.set_column(place, table.schema.field(place), table["name"])


def with_drives(images: pa.Table, members: pa.Table) -> pa.Table:
    """Return rows of IMAGES with the drives of the same images in a table of MEMBERS."""
    at = pc.index_in(images["image_id"], value_set=members["image_id"].combine_chunks())
    for name in ("sequence_id", "sequence_index"):
        images = images.append_column(name, members[name].take(at))
    return images


def two_views_among(two_views: Iterable[pa.Table], image_ids: pa.Array) -> pa.Table:
    """Return the rows of tables of TWO_VIEWS both of whose images are among `image_ids`, sorted.

    The columns JUDGEMENT are left out.
    """
    geometry = [name for name in tables.TWO_VIEWS.names if name not in tables.JUDGEMENT]
    parts = [tables.TWO_VIEWS.empty_table().select(geometry)]
    for table in two_views:
        inside = pc.and_(
            pc.is_in(table["image_id_a"], value_set=image_ids),
            pc.is_in(table["image_id_b"], value_set=image_ids),
        )
        parts.append(table.select(geometry).filter(inside).cast(parts[0].schema))
    return pa.concat_tables(parts).sort_by(
        [("image_id_a", "ascending"), ("image_id_b", "ascending")]
    )
