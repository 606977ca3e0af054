"""The weights of a model in an atlas: learnt from its photographs, or copied from a checkpoint."""

from __future__ import annotations

import logging

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.photographs import lowest_rows
from vladmap.models.kinds import LEARN_NOTHING
from vladmap.models.learning import LearningSettings, complete_weights
from vladmap.models.registry import patch_dimension
from vladmap.pipeline.ledgers import image_shards
from vladmap.pipeline.options import (
    BuildOptions,
    learning_options,
    precision_of,
    reduced_to,
)
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.describe import VOCABULARY
from vladmap.schemas.records import NO_CELL, LedgerEntry, Task
from vladmap.schemas.rejects import UserError
from vladmap.transforms.describe import ModelSettings
from vladmap.transforms.learn import LearnVocabulary, Reading

log = logging.getLogger("vladmap")

WEIGHTS = "weights"
"""The name of the only shard in the ledger of a vocabulary."""


def model_weights(run: Run, settings: ModelSettings) -> LedgerEntry:
    """The model's weights in the atlas. Learnt weights stay as they are when the collection grows.

    Raises UserError for a checkpoint that cannot be read.
    """
    options = run.options
    checkpoint = _read_checkpoint(options.checkpoint)
    fingerprint = _fingerprint(options, checkpoint)
    committed = run.ledger(VOCABULARY).get(WEIGHTS)
    if committed and committed.fingerprint == fingerprint and not options.relearn:
        return committed
    whole = _whole_weights(options, checkpoint)
    if whole:
        return _keep_weights(run, settings, whole, fingerprint)
    return _learn_weights(run, settings, fingerprint)


def weights_fingerprint(options: BuildOptions) -> str:
    """The fingerprint of the weights that these options ask for.

    Raises UserError for a checkpoint that cannot be read.
    """
    return _fingerprint(options, _read_checkpoint(options.checkpoint))


def _fingerprint(options: BuildOptions, checkpoint: bytes | None) -> str:
    given = storage.digest(checkpoint) if checkpoint else ""
    return VOCABULARY.fingerprint_of(options, checkpoint=given)


def _read_checkpoint(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return storage.read_bytes(path)
    except OSError as error:
        raise UserError(f"--checkpoint {path}: {error.strerror or error}") from error


def _whole_weights(options: BuildOptions, checkpoint: bytes | None) -> bytes | None:
    """The file of weights that are complete; None if words have to be learnt."""
    # A path, where there is one: errors name it.
    source = storage.local_copy(options.checkpoint) if checkpoint else None
    return complete_weights(options.model, source, options.learn)


def _keep_weights(run: Run, settings: ModelSettings, whole: bytes, fingerprint: str) -> LedgerEntry:
    """Commit weights that are complete."""
    options, root, ledger_name = run.options, run.atlas.root, VOCABULARY.ledger_name(run.options)
    if without_effect := learning_options(options):
        log.warning(
            "describe: %s has its own words, nothing is learnt: %s has no effect",
            options.checkpoint or options.model,
            without_effect,
        )
    if settings.patch_size:
        patch_dimension(options.model, whole)
    run.atlas.forget(ledger_name, [WEIGHTS])
    file = storage.commit_file(root, layout.model_checkpoint(options.model), whole, 1)
    task = Task(WEIGHTS, NO_CELL, file.path, fingerprint)
    entry = run.ledger(VOCABULARY)[WEIGHTS] = commit_entry(root, ledger_name, task, [file])
    return entry


def _learn_weights(run: Run, settings: ModelSettings, fingerprint: str) -> LedgerEntry:
    """Learn words, and the reduction of descriptors, from a sample of the images."""
    options, root, ledger_name = run.options, run.atlas.root, VOCABULARY.ledger_name(run.options)
    learning = _learning(options, settings.patch_size)
    shards = (entry.file.path for entry in image_shards(run).values())
    sample = lowest_rows(root, shards, learning.sample_images)
    listed = layout.vocabulary_sample(options.model)
    storage.commit_table(root, listed, sample)
    run.atlas.forget(ledger_name, [WEIGHTS])
    output = layout.model_weights(options.model)
    ledger = run.execute(
        VOCABULARY,
        [Task(WEIGHTS, NO_CELL, output, fingerprint, (("sample", listed),))],
        LearnVocabulary(ledger_name, Reading(root, settings.threads, options.max_pixels), learning),
        count=lambda task: sample.num_rows,
        device=options.device,
    )
    storage.delete(run.atlas.path(listed))  # nothing reads it again
    return ledger[WEIGHTS]


def _learning(options: BuildOptions, patch_size: int) -> LearningSettings:
    return LearningSettings(
        model=options.model,
        checkpoint=options.checkpoint or None,
        clusters=options.clusters,
        seed=options.seed,
        device=options.device,
        precision=precision_of(options),
        whiten=options.whiten,
        dimension=reduced_to(options),
        patch_size=patch_size,
        patch_dimension=options.patch_dimension if patch_size else 0,
        word_images=options.vocabulary_images,
    )


def sample_size(options: BuildOptions) -> int:
    """Photographs that a model is learnt from, at most; 0 where its weights are taken as whole."""
    if options.model in LEARN_NOTHING or (options.checkpoint and not options.learn):
        return 0
    return _learning(options, options.patch_size).sample_images
