"""Extracting the local features of new images, for re-ranking and for the stage `verify`."""

from __future__ import annotations

import logging
from functools import partial

from vladmap.atlas import layout
from vladmap.features.registry import feature_kind
from vladmap.pipeline.ledgers import image_count, task_per_shard
from vladmap.pipeline.options import worker_threads
from vladmap.pipeline.rejects import check_ledger_rejects
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.verify import FEATURES
from vladmap.schemas.records import LedgerEntry
from vladmap.transforms.verify import ExtractFeatures

log = logging.getLogger("vladmap")


def extract_features(run: Run) -> dict[str, LedgerEntry]:
    """Bring the local features up to date; returns their ledger.

    Raises UserError where too many photographs are rejected.
    """
    options, ledger_name = run.options, FEATURES.ledger_name(run.options)
    ledger = run.execute(
        FEATURES,
        task_per_shard(
            run,
            partial(layout.features, options.features),
            FEATURES.fingerprint_of(options),
            "features",
        ),
        ExtractFeatures(
            run.atlas.root,
            ledger_name,
            options.features,
            options.max_pixels,
            worker_threads(options, run.in_process),
            options.device,
        ),
        count=image_count(run),
        device=feature_kind(options.features).device(options.device),
    )
    check_ledger_rejects(run, "verify", ledger_name, ledger)
    panoramas = sum(entry.counts["panoramas"] for entry in ledger.values())
    if panoramas:
        log.info(
            "features: %d panoramas are not mapped, only searched: see rejects/%s",
            panoramas,
            ledger_name,
        )
    return ledger
