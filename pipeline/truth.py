"""An atlas against the truth: its map, its retrieval, and the file that keeps both for the report.

Images are right where the truth says they were taken; GPS is not asked.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry
from vladmap.geodesy.wgs84 import ecef_on_ellipsoid
from vladmap.mapping.check import check_map
from vladmap.photos.places import Places
from vladmap.photos.positions import valid_positions
from vladmap.photos.sequences import beside_in_sequence
from vladmap.pipeline.ledgers import identity, image_shards
from vladmap.pipeline.names import BESIDE
from vladmap.pipeline.names import TRUTH as PATH
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.describe import DESCRIBE
from vladmap.reporting.data import TruthFigures
from vladmap.reporting.geometry import heading_of_rotation
from vladmap.reporting.truth import truth_section
from vladmap.retrieval.descriptors import descriptor_matrix
from vladmap.retrieval.truth import RECALL_AT, RIGHT_DEG, RIGHT_M, recall_of_places
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL, Task
from vladmap.schemas.rejects import UserError

log = logging.getLogger("vladmap")

STAGE = "truth"
"""The comparison's line in the ledger, so that a changed figure does not go unseen."""

_COLUMNS = [
    "image_id",
    "uri",
    "captured_at",
    "sequence_id",
    "sequence_index",
    "duplicate_of",
]


def measure(run: Run, truth: pa.Table) -> dict[str, Any]:
    """Compare an atlas with the truth (schemas.tables.TRUTH).

    `map` is what mapping.check.check_map says; `retrieval` the recall of the descriptors of the
    run's model, None where the atlas has none; `measured_on` the identity of what was compared.
    Raises UserError for an atlas without poses, and for the truth of another collection.
    """
    path = run.atlas.path("poses.parquet")
    if not storage.exists(path):
        raise UserError(f"{run.atlas.root} has no poses.parquet: run `vladmap build` to its end")
    return {
        "map": check_map(storage.read_table(path), truth),
        "retrieval": _retrieval(run, truth),
        "measured_on": _measured_on(run),
    }


def store(run: Run, measured: dict[str, Any]) -> None:
    """Keep a comparison in the atlas; equal ones are equal files."""
    data = json.dumps(_numbers(measured), indent=1, sort_keys=True, allow_nan=False) + "\n"
    root = run.atlas.root
    file = storage.commit_file(root, PATH, data.encode(), 1)
    task = Task(STAGE, NO_CELL, PATH, str(measured["measured_on"]))
    run.atlas.ledger(STAGE)[STAGE] = commit_entry(root, STAGE, task, [file])


def stored(run: Run) -> TruthFigures | None:
    """The comparison that the atlas keeps, None without one that can be read.

    It is current if images, descriptors and poses are still those that were compared, and the
    descriptors those of the run's model.
    """
    if STAGE not in run.atlas.ledger(STAGE):
        if storage.exists(run.atlas.path(PATH)):
            log.warning("%s is not as it was written: run `vladmap check-map` again", PATH)
        return None
    try:
        said = json.loads(storage.read_bytes(run.atlas.path(PATH)))
        found = TruthFigures(
            current=said["measured_on"] == _measured_on(run),
            map=dict(said["map"]),
            retrieval=None if said["retrieval"] is None else dict(said["retrieval"]),
        )
        truth_section(found)  # a file that another version wrote may lack what is shown
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def stored_identity(run: Run) -> str:
    """What the report depends on: the bytes of the comparison, and whether it is current."""
    entry = run.atlas.ledger(STAGE).get(STAGE)
    return f"{entry.file.digest} {_measured_on(run)}" if entry else ""


def _measured_on(run: Run) -> str:
    """Identity of all that a comparison reads of the atlas."""
    images = [entry.file.digest for entry in image_shards(run).values()]
    return storage.combined_digest([*images, identity(run, "describe"), identity(run, "merge")])


def _retrieval(run: Run, truth: pa.Table) -> dict[str, Any] | None:
    images, places = _placed(run, truth)
    found = _descriptors(run, images["image_id"].to_pylist())
    if found is None:
        return None
    descriptors, about = found
    beside = beside_in_sequence(
        images["sequence_id"].to_pylist(),
        images["sequence_index"].to_numpy(),
        images["captured_at"].to_numpy(),
        BESIDE,
    )
    recall = recall_of_places(descriptors, places, beside)
    return {
        **about,
        "right_m": RIGHT_M,
        "right_deg": RIGHT_DEG,
        "beside": BESIDE,
        # These three, and the recalls below, are named as `vladmap evaluate` names them.
        "queries": recall.queries,
        "queries_with_positive": recall.with_positive,
        "queries_unreadable": int((~descriptors.any(axis=1)).sum()),
        "queries_without_heading": int(np.isnan(places.headings).sum()),
        "found": {str(k): recall.found[k] for k in RECALL_AT},
        "recall_over_all_queries": {str(k): recall.recall(k) for k in RECALL_AT},
        "recall_over_queries_with_positive": {
            str(k): recall.recall_with_positive(k) for k in RECALL_AT
        },
    }


def _placed(run: Run, truth: pa.Table) -> tuple[pa.Table, Places]:
    """The images of which the truth knows the place, without exact duplicates, in order of uri."""
    empty = tables.IMAGES.empty_table().select(_COLUMNS)
    shards = [
        storage.read_table(run.atlas.path(entry.file.path), _COLUMNS)
        for entry in image_shards(run).values()
    ]
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
        heading_of_rotation(turned),
    )
    return images, places


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column, null as NaN."""
    return np.asarray(table[name].to_numpy(), np.float64)


def _descriptors(run: Run, ids: list[str]) -> tuple[NDArray[np.float32], dict[str, Any]] | None:
    """(N, D) float32 of N images, zero where one has none, and what made them; None without any."""
    shards = [entry for entry in run.ledger(DESCRIBE).values() if entry.file.rows]
    if not shards:
        return None
    metadata = storage.read_schema(run.atlas.path(shards[0].file.path)).metadata
    dimension = int(metadata[b"vladmap:dimension"])
    row_of = {image: row for row, image in enumerate(ids)}
    descriptors = np.zeros((len(ids), dimension), np.float32)
    for entry in shards:
        table = storage.read_table(run.atlas.path(entry.file.path))
        rows = np.array([row_of.get(image, -1) for image in table["image_id"].to_pylist()])
        descriptors[rows[rows >= 0]] = descriptor_matrix(table)[rows >= 0]
    return descriptors, {
        "model": metadata[b"vladmap:model"].decode(),
        "model_fingerprint": metadata[b"vladmap:model_fingerprint"].decode(),
        "dimension": dimension,
    }


def _numbers(value: Any) -> Any:
    """Floats to six decimals, for JSON; what is not finite is null."""
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items()}
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
