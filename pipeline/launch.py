"""Running one Beam pipeline on the chosen runner: its options, its name, its end, its metrics."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineResult
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from vladmap.photos.processes import python_of_path
from vladmap.pipeline.loopback import bind_to_loopback, workers_ended
from vladmap.schemas.rejects import UserError

log = logging.getLogger("vladmap")

_ON_THIS_MACHINE = {"fnapirunner", "directrunner", "bundlebaseddirectrunner", "direct"}
_TAIL_LINES = 40
_CONSOLE = "https://console.cloud.google.com/dataflow/jobs/{region}/{job}?project={project}"

Metrics = dict[str, dict[str, Any]]


def options_of(words: Sequence[str]) -> PipelineOptions:
    """Beam's pipeline options, from its words on the command line.

    If no runner is given FnApiRunner is set, because the DirectRunner would first look for Prism on
    the internet.
    """
    options = PipelineOptions(list(words))
    standard = options.view_as(StandardOptions)
    standard.runner = standard.runner or "FnApiRunner"
    return options


def in_process(words: Sequence[str]) -> bool:
    """Whether the workers live in this process, so that they can use all its cores."""
    options = options_of(words)
    return _is_direct(options) and not _has_processes(options)


def on_this_machine(words: Sequence[str]) -> bool:
    """Whether the work is done here, in this process or in others beside it."""
    options = options_of(words)
    return _is_direct(options) or (options.view_as(PortableOptions).environment_type == "LOOPBACK")


def is_engine(words: Sequence[str]) -> bool:
    """Whether pipelines are handed to an engine, which takes seconds or minutes to start each."""
    return not _is_direct(options_of(words))


def is_dataflow(words: Sequence[str]) -> bool:
    """Whether the work is given to Dataflow."""
    return runs_on_dataflow(options_of(words))


def runs_on_dataflow(options: PipelineOptions) -> bool:
    """Whether these options of Beam give the work to Dataflow."""
    return "dataflow" in options.view_as(StandardOptions).runner.lower()


def worker_count(words: Sequence[str]) -> int:
    """How many machines work beside each other, as far as Beam's options say; one for this one."""
    if on_this_machine(words):
        return 1
    options = options_of(words)
    worker = options.view_as(WorkerOptions)
    asked = (
        worker.max_num_workers,
        worker.num_workers,
        options.view_as(PortableOptions).sdk_worker_parallelism,
    )
    return next((int(number) for number in asked if number), 1)


def _is_direct(options: PipelineOptions) -> bool:
    runner = options.view_as(StandardOptions).runner
    return runner.rpartition(".")[2].lower() in _ON_THIS_MACHINE


def _has_processes(options: PipelineOptions) -> bool:
    mode = options.view_as(DirectOptions).direct_running_mode
    return _is_direct(options) and mode == "multi_processing"


def job_name(given: str | None, label: str, now: datetime) -> str:
    """A name for one pipeline of a build, of letters, digits and dashes as Dataflow demands.

    It holds the stage, and the time if the user gave no name, because names of running jobs must be
    unique.
    """
    stage = re.sub("[^a-z0-9]+", "-", label.lower()).strip("-")
    return f"{given}-{stage}" if given else f"vladmap-{stage}-{now:%Y%m%d-%H%M%S}"


def run(
    words: Sequence[str], label: str, build: Callable[[beam.Pipeline], object]
) -> tuple[PipelineResult, Metrics]:
    """Run the pipeline that `build` fills, to its end; returns its result and its metrics.

    For a job on remote workers its id and its page are logged, and an interruption cancels the job:
    otherwise its workers would go on, beside those of the next run.

    Raises UserError where Beam does not take the options.
    """
    bind_to_loopback()
    options = options_of(words)
    google = options.view_as(GoogleCloudOptions)
    google.job_name = job_name(google.job_name, label, datetime.now(UTC))
    with _runner(options) as runner, python_of_path(), workers_ended():
        try:
            pipeline = beam.Pipeline(runner=runner, options=options)
        except ValueError as error:
            raise UserError(f"Beam's options: {' '.join(str(error).split())}") from error
        build(pipeline)
        result = pipeline.run()
        job = _job_of(result)
        if job:
            page = ""
            if google.project and runs_on_dataflow(options):
                page = ": " + _CONSOLE.format(region=google.region, job=job, project=google.project)
            log.info("%s: job %s (%s)%s", label, job, google.job_name, page)
        try:
            result.wait_until_finish()
        except KeyboardInterrupt:
            if job:
                log.info("%s: cancelling job %s", label, job)
                with contextlib.suppress(Exception):
                    result.cancel()
            raise
    return result, metrics_of(result)


@contextlib.contextmanager
def _runner(options: PipelineOptions) -> Iterator[FnApiRunner | None]:
    """The runner to use in place of the one that Beam makes, if any.

    Beam's worker processes write hundreds of lines to stderr. Here these go to a file; if the
    pipeline fails, its last lines are logged for `--verbose` and `--log-file`.
    """
    if not _has_processes(options):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="vladmap-workers-") as folder:
        path = Path(folder, "log")
        command = (
            f"exec {shlex.quote(sys.executable)} -m vladmap.pipeline.beam_worker {os.getpid()} "
            f">>{shlex.quote(str(path))} 2>&1"
        )
        # In another mode Beam would replace the command above by its own.
        options.view_as(DirectOptions).direct_running_mode = "in_memory"
        try:
            yield FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))
        except Exception:
            if path.exists():
                lines = path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
                log.debug("the workers' last lines:\n%s", "\n".join(lines))
            raise


def _job_of(result: PipelineResult) -> str:
    """The runner's id of the job, or an empty text."""
    job_id = getattr(result, "job_id", None) or getattr(result, "_job_id", None)
    with contextlib.suppress(Exception):  # the job was never created
        return str((job_id() if callable(job_id) else job_id) or "")
    return ""


def metrics_of(result: PipelineResult) -> Metrics:
    """`counters` and `distributions` of a pipeline by namespace and name, over all its steps."""
    try:
        metrics = result.metrics().query()
    except Exception as error:  # some runners have no metrics
        log.debug("no metrics: %s", error)
        return {}
    counters: dict[str, int] = {}
    distributions: dict[str, dict[str, int]] = {}
    for each in metrics["counters"]:
        name = f"{each.key.metric.namespace}.{each.key.metric.name}"
        counters[name] = counters.get(name, 0) + (each.result or 0)
    for each in metrics["distributions"]:
        value = each.result
        if value is None or not value.count:
            continue
        name = f"{each.key.metric.namespace}.{each.key.metric.name}"
        one = {"count": value.count, "sum": value.sum, "min": value.min, "max": value.max}
        other = distributions.get(name, one | {"count": 0, "sum": 0})
        distributions[name] = {
            "count": other["count"] + one["count"],
            "sum": other["sum"] + one["sum"],
            "min": min(other["min"], one["min"]),
            "max": max(other["max"], one["max"]),
        }
    both: Metrics = {"counters": counters, "distributions": distributions}
    return {kind: dict(sorted(values.items())) for kind, values in both.items() if values}
