"""A flex template of Dataflow: one small job that drives a whole build.

A flex template starts one job, and a build is many, each planned from what the one before has
committed. So the template's job has one element, and the worker that takes it runs `vladmap build`,
which submits the build's own jobs and waits for them. Where that worker is lost, Dataflow gives the
element to another, and the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import subprocess
import sys
from collections import deque
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from vladmap.photos.processes import with_this_package
from vladmap.pipeline.launch import options_of

log = logging.getLogger("vladmap")

_PASSED_ON = (
    *("project", "region", "temp_location", "service_account_email"),
    *("network", "subnetwork", "labels", "dataflow_kms_key"),
)
"""What the build's own jobs have from the template's."""

_TAIL_LINES = 20


def main(argv: Sequence[str] | None = None) -> None:
    """Start the template's job; Dataflow's launcher calls it with the template's parameters.

    Under `--template_location`, which the launcher adds, nothing is run: the job is described in a
    file, and the launcher submits it.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--images", default="")
    parser.add_argument("--atlas", required=True)
    parser.add_argument("--job", default="build")
    parser.add_argument("--worker_image", default="")
    parser.add_argument("--words", default="")
    given, beam_words = parser.parse_known_args(argv)
    options = options_of(beam_words)
    words = command_words(
        given.job, given.images, given.atlas, given.worker_image, given.words, options
    )
    with beam.Pipeline(options=options) as pipeline:
        pipeline | "Build" >> beam.Create([words]) | "Drive" >> beam.Map(drive)


def command_words(
    job: str, images: str, atlas: str, worker_image: str, words: str, options: PipelineOptions
) -> list[str]:
    """The command line of the build that the template's job drives.

    The user's own `words` stand last, and so go before what is taken from the template's job.
    """
    known = options.get_all_options(drop_default=True)
    command = [job, "--atlas", atlas, *(["--images", images] if images else [])]
    command.append(f"--runner={known.get('runner')}")
    for name in _PASSED_ON:
        value = known.get(name)
        values = value if isinstance(value, list) else [value]
        command += [f"--{name}={one}" for one in values if one is not None]
    if worker_image:
        command.append(f"--sdk_container_image={worker_image}")
    return [*command, *shlex.split(words)]


def drive(words: Sequence[str]) -> int:
    """Run a command of vladmap to its end and log what it says; returns its exit code, 0.

    It ends with this process: a worker that is ended would else leave a build that goes on beside
    the one that is started in its place.

    Raises RuntimeError with its last lines where it fails: Dataflow then tries it again.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    command = [
        *(sys.executable, "-m", "vladmap.pipeline.engines.bound", str(os.getpid())),
        *(sys.executable, "-u", "-m", "vladmap.jobs.main", *words),
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=with_this_package(),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail.append(line.rstrip())
            log.info("%s", tail[-1])
    if process.returncode:
        raise RuntimeError(
            f"vladmap {words[0]} ended with {process.returncode}: {' | '.join(tail)}"
        )
    return process.returncode
