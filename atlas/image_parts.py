"""Identities of parts of a shard of `images/`: a later stage depends on the columns that it reads.

A changed sequence number then recomputes no descriptor.
"""

from __future__ import annotations

import pyarrow as pa

from vladmap.atlas import storage

_CAMERA = ["make", "model", "width", "height", "focal_px", "projection"]

PARTS = {
    # What is computed from pixels alone: descriptors, patches.
    "pixels": ["image_id", "content_hash", "width", "height", "duplicate_of"],
    # Local features: only photographs taken through one lens have them.
    "features": ["image_id", "content_hash", "width", "height", "duplicate_of", "projection"],
    # The index of places.
    "directions": ["image_id", "latitude", "longitude", "heading_deg"],
    # Pairs. Sequences cross shards: the identity of a shard's neighbours is an input of its own.
    "places": ["image_id", "latitude", "longitude", "gps_accuracy_m"],
    # Two-view geometry.
    "cameras": ["image_id", *_CAMERA],
    # Tiles: all but the sequences, the uri (a model has names in the collection) and the sharpness.
    "map": [
        *("image_id", "name", "content_hash", "duplicate_of", *_CAMERA, "captured_at"),
        *("latitude", "longitude", "altitude", "gps_accuracy_m", "heading_deg"),
    ],
}
"""Columns of `images/` that later stages read, by the name under which the ledger keeps their
identity: a stage depends on its own part and no other. The identity of a whole shard is its file's.
"""


def part_digests(images: pa.Table) -> dict[str, str]:
    """The digest of each part of PARTS of a shard of `images/`."""
    columns = {name: images[name].to_pylist() for name in set().union(*PARTS.values())}
    return {
        part: storage.combined_digest(
            str(row) for row in zip(*(columns[name] for name in names), strict=True)
        )
        for part, names in PARTS.items()
    }
