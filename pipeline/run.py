"""One run over an atlas: finding what a stage still has to do, running it in Beam, reporting it.

Every step of a stage works alike: list its tasks, subtract those that the ledger has as done,
delete the shards that no task stands for, run the rest as one Beam pipeline, report.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam

from vladmap.atlas import layout, listings, storage
from vladmap.atlas.store import AtlasStore
from vladmap.atlas.task_files import write_tasks
from vladmap.console.progress import Bar, counted
from vladmap.pipeline import launch
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.stage import Step
from vladmap.schemas.records import LedgerEntry, Task, sealed, unsealed
from vladmap.schemas.rejects import UserError
from vladmap.transforms.task_files import OnStoredTasks

log = logging.getLogger("vladmap")

RATE_OPTIONS = ("device", "precision", "model", "features", "matcher", "between_drives", "rerank")
"""Options on which the speed of a step depends: they are stored with its timing."""


@dataclass(frozen=True)
class StageResult:
    """The result of a stage: `elements` were computed now, `reused` were committed before."""

    stage: str
    unit: str
    elements: int
    reused: int
    seconds: float
    device: str = "cpu"

    @property
    def rate(self) -> float | None:
        return self.elements / self.seconds if self.elements and self.seconds > 0 else None


@dataclass
class Run:
    """A run over one atlas with one set of options."""

    atlas: AtlasStore
    options: BuildOptions
    beam_args: Sequence[str] = ()
    results: list[StageResult] = field(default_factory=list)
    stage: tuple[int, int] = (1, 1)
    """The number of the current stage, from 1, and the number of stages in this run."""
    rate_options: Mapping[str, Any] = field(default_factory=dict)
    """Those of RATE_OPTIONS that the current stage declares, with their values."""
    _pairs: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict, repr=False)

    @property
    def in_process(self) -> bool:
        """Whether the workers live in this process, so that they can use all its cores."""
        return launch.in_process(self.beam_args)

    def shared(self, pair: tuple[str, str]) -> tuple[str, str]:
        """The same pair, held once: tasks name the shards around them, and these each other."""
        return self._pairs.setdefault(pair, pair)

    def ledger(self, step: Step, *, refresh: bool = False) -> dict[str, LedgerEntry]:
        """The ledger of a step in this run's atlas, with this run's options."""
        return self.atlas.ledger(step.ledger_name(self.options), refresh=refresh)

    def todo(self, step: Step, tasks: Sequence[Task]) -> list[Task]:
        """The tasks that the ledger does not have as done with these settings and inputs."""
        ledger = self.ledger(step)
        return [task for task in tasks if not self._holds(ledger.get(task.shard), task)]

    def _holds(self, entry: LedgerEntry | None, task: Task) -> bool:
        return (
            entry is not None
            and entry.fingerprint == task.fingerprint
            and set(task.inputs) <= set(entry.inputs.items())
            and self.is_current(entry)
        )

    def is_current(self, entry: LedgerEntry) -> bool:
        """Whether everything that an entry was made from still has the same identity."""
        return all(self.atlas.content(key) == value for key, value in entry.inputs.items())

    def execute(
        self,
        step: Step,
        tasks: Sequence[Task],
        transform: beam.PTransform,
        *,
        count: Callable[[Task], int] | None = None,
        device: str = "cpu",
        memory: int = 0,
        rows: int | None = None,
    ) -> dict[str, LedgerEntry]:
        """Bring a step up to date; `transform` takes tasks and commits each in the step's ledger.

        `count` returns how many of the step's units a task holds, for the bar and the rate. Shards
        in the ledger that no task stands for are deleted. `device` and `memory`, the bytes of the
        largest task, are told to runners that choose their workers by them. `rows` are those that
        all tasks read, where they are not the units: see `is_light`.

        Raises UserError where the pipeline ended and left a task without its line in the ledger.
        """
        label, unit = step.title, step.unit
        size = count or (lambda task: 1)
        todo = self._with_digests(self.todo(step, tasks))
        self.forget_others(step, {task.shard for task in tasks})
        before = self._files_of(step, todo)
        total = sum(size(task) for task in todo)
        reused = sum(size(task) for task in tasks) - total
        if not todo:
            self._report(StageResult(label, unit, 0, reused, 0.0, device))
            return self.ledger(step)
        started = time.monotonic()
        here = self.is_light(step, total if rows is None else rows, device)
        committed = None if here or self.in_process else self._committed(step, todo, size)
        with Bar(label, total, unit, committed, self.stage):
            self.pipeline(todo, label, self.with_hints(transform, device, memory), here=here)
        ledger = self.ledger(step, refresh=True)
        missing = self.todo(step, todo)
        if missing:
            raise UserError(
                f"{label}: the pipeline ended, but {len(missing)} of {len(todo)} shards are not in "
                f"the ledger (first: {missing[0].shard}); see the runner's log, then run it again"
            )
        # A shard that was computed again may have fewer files than before: the others are deleted.
        now = {file.path for entry in ledger.values() for file in entry.files}
        for path in sorted(before - now):
            storage.delete(self.atlas.path(path))
        seconds = time.monotonic() - started
        workers = 1 if here else launch.worker_count(self.beam_args)
        self._report(StageResult(label, unit, total, reused, seconds, device), workers)
        return ledger

    def is_light(self, step: Step, rows: int, device: str = "cpu") -> bool:
        """Whether a step with so much to do is done in this process, though workers are elsewhere.

        An engine takes seconds to start a pipeline, in a cloud minutes: longer than the work.
        """
        return step.is_light(rows, device) and launch.is_engine(self.beam_args)

    def _with_digests(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks with the digests of the files that they read, as far as the ledger has them."""
        known = self.atlas.digests()
        return [
            replace(
                task,
                digests=tuple(
                    self.shared((path, known[path])) for _, path in task.reads if path in known
                ),
            )
            for task in tasks
        ]

    def _files_of(self, step: Step, tasks: Sequence[Task]) -> set[str]:
        """The files of shards by the ledger, including those of entries that no longer hold."""
        ledger, lost = self.ledger(step), self.atlas.lost.get(step.ledger_name(self.options), {})
        paths = set()
        for task in tasks:
            damaged = lost.get(task.shard)
            entry = ledger.get(task.shard) or (damaged and damaged.entry)
            paths |= {file.path for file in entry.files} if entry else set()
        return paths

    def with_hints(self, transform: beam.PTransform, device: str, memory: int) -> beam.PTransform:
        """The transform with what its workers need, where a runner gives steps their own workers.

        Only on Dataflow: others would start one more worker for it, and give it nothing.
        """
        if not launch.is_dataflow(self.beam_args):
            return transform
        hints = {}
        if device != "cpu" and self.options.accelerator:
            hints["accelerator"] = self.options.accelerator
        if memory:
            hints["min_ram"] = f"{-(-memory // 10**9)}GB"
        return transform.with_resource_hints(**hints) if hints else transform

    def pipeline(
        self, tasks: Sequence[Task], label: str, transform: beam.PTransform, *, here: bool = False
    ) -> None:
        """Run `transform` over `tasks` in one Beam pipeline, to its end.

        A shuffle lets the runner spread tasks over its workers; a bundle may hold several. Beam
        carries where the tasks lie in a file. `here` keeps the work in this process, whatever the
        runner.
        """
        stored = write_tasks(self.atlas.root, label, tasks)

        def build(pipeline: beam.Pipeline) -> None:
            work = OnStoredTasks(self.atlas.root, transform)
            # Create's own shuffle would come before it (see `transforms.spread`).
            created = pipeline | beam.Create(stored, reshuffle=False)
            created | beam.Reshuffle() | label >> work

        try:
            _, metrics = launch.run(() if here else self.beam_args, label, build)
        finally:
            storage.delete(self.atlas.path(layout.task_file(label)))
        if metrics:
            self._store(layout.METRICS, label, metrics)

    def _committed(
        self, step: Step, todo: Sequence[Task], size: Callable[[Task], int]
    ) -> Callable[[], int]:
        """Show progress, for remote workers, from the entries that appear in the ledger."""
        sizes = {task.shard: size(task) for task in todo}
        started = time.time()

        def committed() -> int:
            folder = layout.ledger_folder(step.ledger_name(self.options))
            return sum(
                sizes.get(layout.shard_of(path), 0)
                for path, modified in listings.list_modified(self.atlas.path(folder), ".json")
                if modified >= started
            )

        return committed

    def forget_others(self, step: Step, shards: set[str]) -> None:
        """Delete from the atlas the shards of a step that are not in `shards`."""
        ledger = self.ledger(step)
        still_used = frozenset(
            file.path for shard in shards if shard in ledger for file in ledger[shard].files
        )
        self.atlas.forget(step.ledger_name(self.options), sorted(set(ledger) - shards), still_used)

    def _report(self, result: StageResult, workers: int = 1) -> None:
        self.results.append(result)
        if result.elements == 0:
            log.info(
                "%s: nothing to do, %s done before",
                result.stage,
                counted(result.reused, result.unit),
            )
        else:
            log.info(
                "%s: %s in %.1f s%s%s",
                result.stage,
                counted(result.elements, result.unit),
                result.seconds,
                # A rate below one a second is not shown: the units are few and large.
                f" ({result.rate:.1f} a second)" if result.rate and result.rate >= 1 else "",
                f", {result.reused} done before" if result.reused else "",
            )
            self._remember(result, workers)

    def _remember(self, result: StageResult, workers: int) -> None:
        """Store the timing of a stage that did work, for reports of later runs."""
        timing = {
            "unit": result.unit,
            "elements": result.elements,
            "reused": result.reused,
            "seconds": round(result.seconds, 3),
            "device": result.device,
            "workers": workers,
            "options": dict(self.rate_options),
        }
        self._store(layout.TIMINGS, result.stage, timing)

    def timings(self) -> dict[str, dict[str, Any]]:
        """The timing of each stage in the last run in which it did work."""
        return {
            name: timing
            for name, timing in self._stored(layout.TIMINGS).items()
            if _is_timing(timing)
        }

    def _store(self, path: str, name: str, value: dict[str, Any]) -> None:
        values = self._stored(path)
        values[name] = value
        storage.write_atomic(self.atlas.path(path), sealed(dict(sorted(values.items()))))

    def _stored(self, path: str) -> dict[str, dict[str, Any]]:
        """The values that `_store` has written; empty if the file is lost or damaged."""
        at = self.atlas.path(path)
        try:
            values = unsealed(storage.read_bytes(at))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s: %s; what earlier runs kept in it is not shown", at, error)
            return {}
        return {name: value for name, value in values.items() if isinstance(value, dict)}


def _is_timing(timing: dict[str, Any]) -> bool:
    kinds: dict[str, type | tuple[type, ...]] = {
        "unit": str,
        "elements": int,
        "reused": int,
        "seconds": (int, float),
        "device": str,
    }
    return all(
        isinstance(timing.get(key), kind) and not isinstance(timing[key], bool)
        for key, kind in kinds.items()
    )
