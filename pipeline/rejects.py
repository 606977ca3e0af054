"""Rejected photographs: whether there are too many, and which have to be read again."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from vladmap.atlas import layout, storage
from vladmap.features.names import FEATURE_NAMES
from vladmap.models.kinds import MODEL_NAMES
from vladmap.pipeline.run import Run
from vladmap.schemas.records import LedgerEntry
from vladmap.schemas.rejects import RejectReason, UserError

_NOT_AS_READ = pa.array(
    [RejectReason.CHANGED.value, RejectReason.MISSING.value, RejectReason.UNREADABLE.value]
)


def check_rejects(run: Run, stage: str, rejected: int, accepted: int, folder: str = "") -> None:
    """Raises UserError if more photographs are rejected than `--max-reject-rate` allows, or all.

    The rejects are in the folder `folder` of `rejects/`, if it is not named after the stage.
    """
    total = rejected + accepted
    listed = run.atlas.path(layout.REJECTS, folder or stage)
    if total and not accepted:
        raise UserError(
            f"{stage}: none of {total} photographs can be used: see {listed} for the reason of each"
        )
    if total and rejected / total > run.options.max_reject_rate:
        raise UserError(
            f"{stage}: {rejected} of {total} photographs rejected, more than --max-reject-rate "
            f"{run.options.max_reject_rate:g}: see {listed}, mend the collection or raise the limit"
        )


def check_ledger_rejects(
    run: Run, stage: str, folder: str, ledger: Mapping[str, LedgerEntry]
) -> None:
    """`check_rejects` for a stage whose ledger counts images and rejects.

    A panorama, which has no local features, is a good photograph and is not counted.
    """
    rejected, panoramas, accepted = (
        sum(entry.counts.get(name, 0) for entry in ledger.values())
        for name in ("rejects", "panoramas", "images")
    )
    check_rejects(run, stage, rejected - panoramas, accepted, folder)


def unreadable_since_ingest(run: Run) -> set[str]:
    """Ids of images that a later stage rejected because the file was missing or had other bytes.

    The listing does not show every change: a file may change during a run, or keep its size and
    times, and a network drive may be unavailable for a while. Such files are read again.
    """
    ledgers = [
        *(f"describe-{model}" for model in MODEL_NAMES),
        *(f"features-{kind}" for kind in FEATURE_NAMES),
    ]
    ids: set[str] = set()
    for ledger in ledgers:
        for entry in run.atlas.ledger(ledger).values():
            if entry.counts.get("rejects") and run.is_current(entry):
                for file in entry.files:
                    if layout.top(file.path) == layout.REJECTS:
                        table = storage.read_table(
                            run.atlas.path(file.path), ["image_id", "reason"]
                        )
                        table = table.filter(pc.is_in(table["reason"], _NOT_AS_READ))
                        ids.update(table["image_id"].to_pylist())
    return ids
