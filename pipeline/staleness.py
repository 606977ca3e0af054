"""What the options make stale in an atlas, without a run: by fingerprints as far as they are told
beforehand, else by comparing the settings with those of the last whole build.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from vladmap.pipeline.build import absolute, kept_options
from vladmap.pipeline.ledgers import image_shards
from vladmap.pipeline.options import AUTO, BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stage import Step
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.stages.describe import DESCRIBE, VOCABULARY, fingerprint_of
from vladmap.pipeline.stages.ingest import SCAN
from vladmap.pipeline.vocabulary import WEIGHTS, weights_fingerprint

_INPUTS = "inputs"
"""In place of a setting that differs: what the step reads is made anew."""


def changed_settings(before: BuildOptions, now: BuildOptions) -> dict[str, set[str]]:
    """By the title of each step the names of its settings that differ."""
    found = {}
    for stage in STAGES.values():
        for step in stage.steps:
            old, new = dict(step.settings(before)), dict(step.settings(now))
            found[step.title] = {
                name for name in {*old, *new} if old.get(name, ...) != new.get(name, ...)
            }
    return found


def propagated(changed: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same with the steps that read results of these: they have other inputs."""
    found = {title: set(names) for title, names in changed.items()}
    for stage in STAGES.values():
        for step in stage.steps:
            if any(_concerns(found, other) for other in step.after):
                found[step.title].add(_INPUTS)
    return found


def _concerns(changed: Mapping[str, set[str]], other: str) -> bool:
    title, _, setting = other.partition(":")
    names = changed[title]
    return bool(names & {setting, _INPUTS}) if setting else bool(names)


def current_fingerprints(run: Run, step: Step) -> set[str] | None:
    """The fingerprints that hold with the run's options; None where they depend on results."""
    options = run.options
    if step.told:
        return {step.fingerprint_of(options)}
    if step is VOCABULARY:
        return set() if options.relearn else {weights_fingerprint(options)}
    if step is DESCRIBE:
        weights = run.ledger(VOCABULARY).get(WEIGHTS)
        decoded = ("cpu", "gpu") if options.decode == AUTO else (options.decode,)
        return {fingerprint_of(options, weights.content, by) for by in decoded} if weights else None
    return None


def stale_steps(run: Run) -> set[str]:
    """Titles of the steps whose results are to be made anew, where there are any.

    Raises UserError for a checkpoint that cannot be read.
    """
    now, before = absolute(run.options), kept_options(run.atlas)
    changed = changed_settings(before or now, now)
    for stage in STAGES.values():
        for step in stage.steps:
            holding = current_fingerprints(run, step)
            if holding is not None:
                made = {entry.fingerprint for entry in run.ledger(step).values()}
                changed[step.title] = {"fingerprint"} if made - holding else set()
    return {title for title, names in propagated(changed).items() if names}


def images_to_do(run: Run, images: int, unread: int, gone: int) -> dict[str, int]:
    """Images that each step has yet to do, by its title.

    Of `images` in the collection `unread` are new or changed; `gone` were read before and are no
    more as they were: each costs the shard that it lay in. Photographs that were rejected are left
    out of the steps that never see them.
    """
    counts = {shard: entry.counts["images"] for shard, entry in image_shards(run).items()}
    there, stale = sum(counts.values()), stale_steps(run)
    usable = min(images, there + unread)
    touched = min(there, math.ceil(gone * there / max(1, len(counts))))
    found = {}
    for stage in STAGES.values():
        for step in stage.steps:
            ledger = run.ledger(step)
            everything = images if step is SCAN else usable
            if step.title in stale or not ledger:
                left = everything
            elif step is SCAN:
                left = unread
            elif step.lasting:
                left = 0
            elif any(shard in counts for shard in ledger):
                left = usable - sum(counts.get(shard, 0) for shard in ledger) + touched
            else:  # one task, or what is not cut into shards
                left = unread + touched
            found[step.title] = max(0, min(everything, left))
    return found
