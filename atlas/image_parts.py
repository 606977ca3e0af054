"""Identities of parts of a shard of `images/`: sets of columns that later stages read.

A later stage depends on one part: a changed sequence number does not make descriptors stale.
"""

from __future__ import annotations

import pyarrow as pa

from vladmap.atlas import storage

_CAMERA = ["make", "model", "width", "height", "focal_px", "projection"]

PARTS = {
    # For what is computed from pixels alone: descriptors and patches.
    "pixels": ["image_id", "content_hash", "width", "height", "duplicate_of"],
    # For local features, which panoramas do not have.
    "features": ["image_id", "content_hash", "width", "height", "duplicate_of", "projection"],
    # For the index of smoothed descriptors.
    "directions": ["image_id", "latitude", "longitude", "heading_deg"],
    # For pairs. Sequences cross shards, so the neighbours in a sequence are an input of their own.
    "places": ["image_id", "latitude", "longitude", "gps_accuracy_m"],
    # For two-view geometry.
    "cameras": ["image_id", *_CAMERA],
    # For tiles: all but the sequences, the sharpness, and the uri (models have names relative to
    # the collection).
    "map": [
        *("image_id", "name", "content_hash", "duplicate_of", *_CAMERA, "captured_at"),
        *("latitude", "longitude", "altitude", "gps_accuracy_m", "heading_deg"),
    ],
}
"""Columns of `images/` that later stages read, by the name of their identity in the ledger: a stage
depends on its own part alone. The identity of a whole shard is that of its file.
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
