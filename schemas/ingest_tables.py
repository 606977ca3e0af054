"""Tables of `work/`: the collection's files as they were listed, and what each file's header says.

They pass from one step of ingest to the next; readers of an atlas do not need them.
"""

from __future__ import annotations

import pyarrow as pa

from vladmap.schemas import tables

LISTING = pa.schema(
    [
        ("path", pa.string()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("modified_ns", pa.int64()),
        ("changed_ns", pa.int64()),
        ("kind", pa.string()),
        ("overrides", pa.string()),
    ]
)
"""One file of a collection. `kind` is `file`, or says why the entry is not a readable file;
`overrides` is JSON, the values that a manifest gives for it.

Times are nanoseconds since 1970. `modified_ns` is the modification time, which programs that
correct a photograph in place often restore; `changed_ns` (ctime) is set by the file system alone.
It is null on object stores, whose modification time cannot be set either.
"""

PLANNED = pa.schema([*LISTING, ("home", pa.string()), ("home_hash", pa.string())])
"""A listed file in a plan. `home` is the chunk that held a file of this path in an earlier run,
when its bytes had the hash `home_hash`. If the bytes are still the same, its row stays in that
chunk, so that a touched or moved file does not cause its descriptor to be computed again.
"""

HEADER_FIELDS = [
    "width",
    "height",
    "make",
    "model",
    "focal_px",
    "captured_at",
    "captured_local",
    "time_source",
    "latitude",
    "longitude",
    "altitude",
    "gps_accuracy_m",
    "heading_deg",
    "projection",
]
"""Columns of `images/` that are fields of photos.headers.header.Header."""

HEADERS = pa.schema(
    [
        ("path", pa.string()),
        ("home", pa.string()),
        ("given_sequence", pa.string()),
        ("notes", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        *(
            tables.IMAGES.field(name).with_nullable(True)
            for name in ("image_id", "uri", "content_hash", "sharpness", *HEADER_FIELDS)
        ),
    ]
)
"""What the header of one file says, or (`reason`, `detail`) why the file cannot be used."""
