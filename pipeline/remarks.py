"""Remarks for the report: what was guessed, doubted or left out."""

from __future__ import annotations

from collections import Counter
from typing import Any

from vladmap.atlas import layout, storage
from vladmap.console.progress import counted
from vladmap.mapping.judging import KEPT, VERDICTS, verdict_counts
from vladmap.pipeline.ledgers import paths_of, read_json
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.reconstruct import RECONSTRUCT

_VERDICT_REASONS = {
    "far": "too far apart by GPS and drives",
    "alike": "more alike than photographs so far apart can be",
    "turned": "turned against all that see both",
    "misfit": "off the poses that all pairs give their photographs",
    "depth": "at depths that other pairs of their photographs contradict",
    "contradicted": "loops that odometry or more loops of the same streets contradict",
}


_DOUBTS = {
    "loose": "held too loosely",
    "jump": "beyond a jump of their drive",
    "torn": "where the map is torn",
}


def remarks(run: Run, merged: dict[str, Any]) -> list[str]:
    """Sentences; `merged` is the content of `model/merge.json`."""
    return [
        *of_collection(run),
        *_of_pairs(run),
        *_of_doubts(merged.get("models", [])),
        *_of_models(merged.get("models_left_out", []), layout.MERGE_REPORT),
        *(
            sentence
            for path in paths_of(run, RECONSTRUCT)
            for sentence in _of_tile(read_json(run, path), path)
        ),
        *_of_colours(merged.get("colours", {})),
    ]


def of_collection(run: Run) -> list[str]:
    """What the listing left out or guessed."""
    notes = run.atlas.manifest.get("collection_notes")
    return (
        [f"{note}." for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
    )


def _of_pairs(run: Run) -> list[str]:
    """How many verified pairs were not mapped from, and why."""
    path = run.atlas.path(layout.JUDGED)
    if not storage.exists(path):
        return []
    counts = verdict_counts(storage.read_table(path, ["verdict"]))
    total = sum(counts.values())
    dropped = {name: count for name, count in counts.items() if name != VERDICTS[KEPT] and count}
    if not dropped:
        return []
    reasons = ", ".join(f"{count:,} {_VERDICT_REASONS[name]}" for name, count in dropped.items())
    return [
        f"{sum(dropped.values()):,} of {total:,} verified pairs are not trusted and "
        f"took no part in the map: {reasons}; {layout.JUDGED} names them."
    ]


def _of_doubts(models: list[dict[str, Any]]) -> list[str]:
    """How many photographs of the map must not be used, and why."""
    counts: Counter[str] = Counter()
    for model in models:
        counts.update(model.get("doubtful", {}))
    if not counts:
        return []
    reasons = ", ".join(f"{count:,} {_DOUBTS[name]}" for name, count in sorted(counts.items()))
    return [
        f"{counted(counts.total(), 'photographs')} of the map must not be used: {reasons}; "
        f"{layout.POSES} names them (doubt)."
    ]


def _of_tile(report: dict[str, Any], path: str) -> list[str]:
    late = [f"{path}: no time was left, {missed}." for missed in report.get("out_of_time", [])]
    again = report.get("grown", {}).get("from_nothing")
    late += [f"{path}: mapped from nothing, not continued: {again}."] if again else []
    return late + _of_models(report.get("models_left_out", []), path)


def _of_models(left_out: list[dict[str, Any]], path: str) -> list[str]:
    return [
        f"A model of {left['images']:,} images is left out ({left['reason']}); {path} names them."
        for left in left_out
    ]


def _of_colours(colours: dict[str, Any]) -> list[str]:
    unreadable, black = colours.get("unreadable", {}), colours.get("points_without", 0)
    if not unreadable:
        return []
    first = next(f"{name} ({why})" for name, why in sorted(unreadable.items()))
    return [
        f"{counted(len(unreadable), 'photographs')} could not be read again to colour the points "
        f"that they show, the first is {first}; {counted(black, 'points')} stayed black."
    ]
