"""The comparison of an atlas with the truth that the atlas keeps for its report."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import pyarrow as pa

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.layout import REPORT_TRUTH
from vladmap.evaluation.map_truth import compare_with_truth
from vladmap.pipeline.ledgers import identity, image_shards
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.describe import DESCRIBE
from vladmap.reporting.data import TruthFigures
from vladmap.reporting.truth_section import truth_section
from vladmap.schemas.records import NO_CELL, Task

log = logging.getLogger("vladmap")

STAGE = "truth"
"""The ledger of the comparison, by which a changed file is noticed."""


def measure(run: Run, truth: pa.Table) -> dict[str, Any]:
    """Compare the run's atlas and model with the truth: `evaluation.map_truth.compare_with_truth`,
    and `measured_on`, the identity of what was compared.

    Raises UserError for an atlas without poses, and for the truth of another collection.
    """
    images, descriptors = image_shards(run).values(), run.ledger(DESCRIBE).values()
    compared = compare_with_truth(
        run.atlas.root,
        truth,
        [entry.file.path for entry in images],
        [entry.file.path for entry in descriptors if entry.file.rows],
    )
    return {**compared, "measured_on": _measured_on(run)}


def store(run: Run, measured: dict[str, Any]) -> None:
    """Write a comparison into the atlas; equal comparisons give equal bytes."""
    data = json.dumps(_numbers(measured), indent=1, sort_keys=True, allow_nan=False) + "\n"
    root = run.atlas.root
    file = storage.commit_file(root, REPORT_TRUTH, data.encode(), 1)
    task = Task(STAGE, NO_CELL, REPORT_TRUTH, str(measured["measured_on"]))
    run.atlas.ledger(STAGE)[STAGE] = commit_entry(root, STAGE, task, [file])


def stored(run: Run) -> TruthFigures | None:
    """The comparison that is stored in the atlas; None if there is none that can be read.

    It is current if images, descriptors and poses are still those that were compared and the
    descriptors are those of the run's model.
    """
    if STAGE not in run.atlas.ledger(STAGE):
        if storage.exists(run.atlas.path(REPORT_TRUTH)):
            log.warning("%s is not as it was written: run `vladmap check-map` again", REPORT_TRUTH)
        return None
    try:
        content = json.loads(storage.read_bytes(run.atlas.path(REPORT_TRUTH)))
        figures = TruthFigures(
            current=content["measured_on"] == _measured_on(run),
            map=dict(content["map"]),
            retrieval=None if content["retrieval"] is None else dict(content["retrieval"]),
        )
        truth_section(figures)  # a file of another version may lack figures: KeyError
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return figures


def stored_identity(run: Run) -> str:
    """What the report depends on: the bytes of the comparison, and whether it is current."""
    entry = run.atlas.ledger(STAGE).get(STAGE)
    return f"{entry.file.digest} {_measured_on(run)}" if entry else ""


def _measured_on(run: Run) -> str:
    """Identity of everything in the atlas that a comparison reads."""
    images = [entry.file.digest for entry in image_shards(run).values()]
    return storage.combined_digest([*images, identity(run, "describe"), identity(run, "merge")])


def _numbers(value: Any) -> Any:
    """The value with floats rounded to six decimals, and null for those that are not finite."""
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items()}
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
