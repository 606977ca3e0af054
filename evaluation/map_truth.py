"""An atlas compared with the truth: its map, and its retrieval.

The places of images are those of the truth; GPS is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vladmap.atlas import layout, storage
from vladmap.evaluation.names import BESIDE
from vladmap.evaluation.place_recall import RECALL_AT, recall_of_places
from vladmap.geodesy.headings import headings_deg
from vladmap.geodesy.wgs84 import ecef_on_ellipsoid
from vladmap.mapping.check import check_map
from vladmap.photos.places import Places
from vladmap.photos.positions import valid_positions
from vladmap.photos.sequences import beside_in_sequence
from vladmap.retrieval.descriptors import descriptor_matrix
from vladmap.retrieval.names import RIGHT_DEG, RIGHT_M
from vladmap.schemas import tables, truth_tables
from vladmap.schemas.rejects import UserError

_COLUMNS = [
    "image_id",
    "uri",
    "captured_at",
    "sequence_id",
    "sequence_index",
    "duplicate_of",
]


class _Descriptors(NamedTuple):
    """Descriptors of one `model`: `rows` (N, D) float32 of N images, zero for those without."""

    rows: NDArray[np.float32]
    model: dict[str, Any]


def read_truth(path: str) -> pa.Table:
    """Read a truth table. Raises UserError for another file, with the columns that it lacks."""
    try:
        table = pq.read_table(Path(path))
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"--truth {path}: {str(error).splitlines()[0]}") from error
    missing = sorted(set(truth_tables.TRUTH.names) - set(table.column_names))
    if missing:
        raise UserError(f"--truth {path} lacks the columns {', '.join(missing)}")
    return table


def compare_with_truth(
    root: str, truth: pa.Table, images: Sequence[str], descriptors: Sequence[str]
) -> dict[str, Any]:
    """Compare the atlas at `root` with the truth (schemas.truth_tables.TRUTH).

    `images` and `descriptors` are the paths in the atlas of its shards, `descriptors` those of one
    model that have rows. Of the result, `map` is what mapping.check.check_map says, and `retrieval`
    the recall of the descriptors, None where there are none. Raises UserError for an atlas without
    poses, and for the truth of another collection.
    """
    path = storage.join(root, layout.POSES)
    if not storage.exists(path):
        raise UserError(f"{root} has no {layout.POSES}: run `vladmap build` to its end")
    compared = check_map(storage.read_table(path), truth)
    placed, places = _placed(root, truth, images)
    recall = None
    if descriptors:
        rows = _descriptors(root, placed["image_id"].to_pylist(), descriptors)
        recall = _recall(placed, places, rows)
    return {"map": compared, "retrieval": recall}


def _recall(images: pa.Table, places: Places, descriptors: _Descriptors) -> dict[str, Any]:
    """Recall of the images as queries among each other, by their true places."""
    beside = beside_in_sequence(
        images["sequence_id"].to_pylist(),
        images["sequence_index"].to_numpy(),
        images["captured_at"].to_numpy(),
        BESIDE,
    )
    recall = recall_of_places(descriptors.rows, places, beside)
    return {
        **descriptors.model,
        "right_m": RIGHT_M,
        "right_deg": RIGHT_DEG,
        "beside": BESIDE,
        # These keys, and those of the recalls below, are the ones of `vladmap evaluate`.
        "queries": recall.queries,
        "queries_with_positive": recall.with_positive,
        "queries_unreadable": int((~descriptors.rows.any(axis=1)).sum()),
        "queries_without_heading": int(np.isnan(places.headings).sum()),
        "found": {str(k): recall.hits[k] for k in RECALL_AT},
        "recall_over_all_queries": {str(k): recall.recall(k) for k in RECALL_AT},
        "recall_over_queries_with_positive": {
            str(k): recall.recall_with_positive(k) for k in RECALL_AT
        },
    }


def _placed(root: str, truth: pa.Table, paths: Sequence[str]) -> tuple[pa.Table, Places]:
    """The images whose place the truth has, without exact duplicates, in the order of their uri."""
    empty = tables.IMAGES.empty_table().select(_COLUMNS)
    shards = [storage.read_table(storage.join(root, path), _COLUMNS) for path in paths]
    images = pa.concat_tables([empty, *(shard.cast(empty.schema) for shard in shards)])
    images = images.filter(pc.is_null(images["duplicate_of"])).sort_by("uri")
    known = dict(zip(truth["image_id"].to_pylist(), range(truth.num_rows), strict=True))
    rows = np.array([known.get(image, -1) for image in images["image_id"].to_pylist()], np.int64)
    latitude, longitude = (_floats(truth, name) for name in ("latitude", "longitude"))
    there = rows >= 0
    there[there] = valid_positions(latitude[rows[there]], longitude[rows[there]])
    rows, images = rows[there], images.filter(pa.array(there))
    turned = np.stack([_floats(truth, name)[rows] for name in ("qw", "qx", "qy", "qz")], axis=1)
    places = Places(
        tuple(Path(uri) for uri in images["uri"].to_pylist()),
        ecef_on_ellipsoid(latitude[rows], longitude[rows]),
        ("",) * len(rows),
        headings_deg(turned),
    )
    return images, places


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column, null as NaN."""
    return np.asarray(table[name].to_numpy(), np.float64)


def _descriptors(root: str, ids: list[str], paths: Sequence[str]) -> _Descriptors:
    """The descriptors of N images, from at least one shard."""
    metadata = storage.read_schema(storage.join(root, paths[0])).metadata
    dimension = int(metadata[b"vladmap:dimension"])
    row_of = {image: row for row, image in enumerate(ids)}
    descriptors = np.zeros((len(ids), dimension), np.float32)
    for path in paths:
        table = storage.read_table(storage.join(root, path))
        rows = np.array([row_of.get(image, -1) for image in table["image_id"].to_pylist()])
        descriptors[rows[rows >= 0]] = descriptor_matrix(table)[rows >= 0]
    model = {
        "model": metadata[b"vladmap:model"].decode(),
        "model_fingerprint": metadata[b"vladmap:model_fingerprint"].decode(),
        "dimension": dimension,
    }
    return _Descriptors(descriptors, model)
