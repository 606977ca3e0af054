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
from vladmap.pipeline.stage import Step
from vladmap.pipeline.stages.verify import FEATURES, SECOND, VERIFY, has_second
from vladmap.schemas.records import LedgerEntry
from vladmap.transforms.verify import ExtractFeatures

log = logging.getLogger("vladmap")


def extract_features(run: Run) -> dict[str, LedgerEntry]:
    """Bring the local features up to date; returns their ledger.

    Raises UserError where too many photographs are rejected.
    """
    ledger_name, ledger = FEATURES.ledger_name(run.options), _extract(run, FEATURES)
    check_ledger_rejects(run, "verify", ledger_name, ledger)
    panoramas = sum(entry.counts["panoramas"] for entry in ledger.values())
    if panoramas:
        log.info(
            "features: %d panoramas are not mapped, only searched: see rejects/%s",
            panoramas,
            ledger_name,
        )
    return ledger


def extract_second(run: Run) -> dict[str, LedgerEntry]:
    """Bring the features for pairs between drives up to date; returns their ledger, empty where
    none are asked for.

    A photograph without any costs nothing but its pairs of this kind: it is counted.
    """
    if not has_second(run.options):
        return {}
    ledger = _extract(run, SECOND)
    without = sum(entry.counts["rejects"] - entry.counts["panoramas"] for entry in ledger.values())
    if without:
        log.info(
            "%s: %d photographs have none, and no pair by them: see rejects/%s",
            SECOND.title,
            without,
            SECOND.ledger_name(run.options),
        )
    return ledger


def _extract(run: Run, step: Step) -> dict[str, LedgerEntry]:
    """The ledger of the features of a step, whose settings name the detector."""
    options = run.options
    detector = str(step.settings(options)["detector"])
    return run.execute(
        step,
        task_per_shard(
            run, partial(layout.features, detector), step.fingerprint_of(options), "features"
        ),
        ExtractFeatures(
            run.atlas.root,
            step.ledger_name(options),
            detector,
            options.max_pixels,
            worker_threads(options, run.in_process),
            options.device,
        ),
        count=image_count(run),
        device=feature_kind(detector).device(options.device),
    )


def second_reads(
    run: Run, views: list[str], images: list[str]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What a task reads beside FEATURES to know the keypoints of `views`, shards of VERIFY, in
    `images`, shards of images: (reads, inputs), none where its pairs are all of one kind.

    The ledger of VERIFY says what its matches are of, whatever the options of this run.
    """
    ledger, reads, inputs = run.ledger(VERIFY), {}, {}
    first, wanted = FEATURES.ledger_name(run.options), set(images)
    for view in views:
        for key, identity in ledger[view].inputs.items():
            stage, _, shard = key.partition("/")
            if stage.startswith(layout.FEATURES_PREFIX) and stage != first and shard in wanted:
                kind = stage.removeprefix(layout.FEATURES_PREFIX)
                reads[shard] = (layout.SECOND_FEATURES, layout.features(kind, shard))
                inputs[shard] = (key, identity)
    return [reads[shard] for shard in sorted(reads)], [inputs[shard] for shard in sorted(inputs)]
