"""What a stage reads in the ledgers of other stages, and whether it has something to work on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from vladmap.atlas import layout, storage
from vladmap.pipeline.run import Run
from vladmap.pipeline.stage import Step
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.stages.describe import DESCRIBE
from vladmap.pipeline.stages.ingest import INGEST
from vladmap.pipeline.stages.verify import FEATURES
from vladmap.schemas.records import LedgerEntry, Task, shard_cell
from vladmap.schemas.rejects import DamagedFile, UserError


def require(run: Run, name: str) -> None:
    """Raises UserError if a stage that this one needs has not run, or has no results."""
    for needed in reversed(STAGES[name].needs):
        before = STAGES[needed]
        ran = before.may_be_empty and needed in run.atlas.manifest["stages"]
        if not run.atlas.ledger(before.ledger_names(run.options)[-1]) and not ran:
            raise UserError(
                f"{name}: {run.atlas.root} has nothing from the stage `{needed}` with these "
                f"options yet: run `vladmap {needed}` first, or `vladmap build`"
            )


def identity(run: Run, name: str) -> str:
    """Digest of everything that a stage has committed, from its ledger."""
    return storage.combined_digest(
        f"{ledger}/{shard} {entry.content}"
        for ledger in STAGES[name].ledger_names(run.options)
        for shard, entry in sorted(run.atlas.ledger(ledger).items())
    )


def image_shards(run: Run) -> dict[str, LedgerEntry]:
    """Committed shards of `images/`, in the order in which the collection grew."""
    return run.atlas.image_shards()


def reject_paths(run: Run) -> list[str]:
    """Paths of all rejects with this run's model and features, those of earlier stages first."""
    return [
        file.path
        for step in (INGEST, DESCRIBE, FEATURES)
        for _, entry in sorted(run.ledger(step).items())
        for file in entry.files
        if layout.top(file.path) == layout.REJECTS
    ]


def paths_of(run: Run, step: Step) -> list[str]:
    """The main file of each shard of a step, relative to the atlas, in the order of their names."""
    return [entry.file.path for _, entry in sorted(run.ledger(step).items())]


def read_json(run: Run, path: str) -> dict[str, Any]:
    """A JSON file that a stage committed; empty where there is none yet.

    Raises DamagedFile where it is not what was committed.
    """
    at = run.atlas.path(path)
    try:
        content: dict[str, Any] = json.loads(storage.read_whole(at, run.atlas.digests().get(path)))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DamagedFile(at, str(error)) from error
    return content


def inputs_of(
    run: Run, step: Step, shards: Iterable[str], part: str = ""
) -> tuple[tuple[str, str], ...]:
    """The inputs of a task: the identities, by the ledger, of shards that an earlier step made.

    With `part` they are the identities of that part of the shards alone.
    """
    ledger, name = run.ledger(step), step.ledger_name(run.options)
    key = f":{part}" if part else ""
    return tuple(
        run.shared((f"{name}/{shard}{key}", ledger[shard].identity(part))) for shard in shards
    )


def image_count(run: Run) -> Callable[[Task], int]:
    """The number of images in a task's shard that are not exact duplicates."""
    counts = {
        shard: entry.counts["images"] - entry.counts["duplicates"]
        for shard, entry in image_shards(run).items()
    }
    return lambda task: counts.get(task.shard, 0)


def task_per_shard(
    run: Run, path: Callable[[str], str], fingerprint: str, part: str = "pixels"
) -> list[Task]:
    """One task for each shard of `images/`.

    It depends on one `part` of the shard (see PARTS); `path` gives the path of its output.
    """
    return [
        Task(
            shard,
            shard_cell(shard),
            path(shard),
            fingerprint,
            reads=(("images", entry.file.path),),
            inputs=inputs_of(run, INGEST, [shard], part),
        )
        for shard, entry in image_shards(run).items()
    ]
