"""Whether a build could begin: its device, its runner, the place of its atlas, room on the disk.

Everything here only looks: nothing is written, no job is submitted. Each check is a sentence, and
says whether it is a warning.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
    WorkerOptions,
)

from vladmap.atlas import storage
from vladmap.console.numbers import human_bytes
from vladmap.pipeline import launch
from vladmap.pipeline.options import BuildOptions

_ANSWER_S = 3.0
_STORES = {"gs": ("gcp", "google.cloud.storage"), "s3": ("aws", "boto3")}


@dataclass(frozen=True)
class Check:
    """What was looked at, in words; `good` is false for what stands in a build's way."""

    about: str
    text: str
    good: bool = True


def ready(options: BuildOptions, beam_words: Sequence[str], needed: float) -> list[Check]:
    """Every check of a build that will put `needed` bytes in its atlas."""
    beam = launch.options_of(beam_words)
    elsewhere = not launch.on_this_machine(beam_words)
    checks = [_device(options, elsewhere), *_runner(beam, elsewhere)]
    if storage.is_local(options.atlas):
        checks += [writable(options.atlas), room(options.atlas, needed)]
    else:
        checks.append(
            Check("atlas", f"whether {options.atlas} may be written is seen when the build begins")
        )
    return [*checks, *_places(options, elsewhere)]


def _device(options: BuildOptions, elsewhere: bool) -> Check:
    if options.device == "cpu":
        return Check("device", "models run on the CPU")
    if elsewhere:
        return Check(
            "device", f"workers need a GPU for --device {options.device}: not seen from here"
        )
    from vladmap.weights.devices import gpu_names

    names = gpu_names()
    if not names:
        return Check(
            "device", f"--device {options.device}: there is no GPU here, or no driver for it", False
        )
    return Check("device", f"{options.device}: {', '.join(names)}")


def _runner(beam: PipelineOptions, elsewhere: bool) -> list[Check]:
    name = beam.view_as(StandardOptions).runner
    if not elsewhere:
        return [Check("runner", f"{name.rpartition('.')[2]}, on this machine")]
    checks = [Check("runner", f"{name.rpartition('.')[2]}: the work is done by its workers")]
    if launch.runs_on_dataflow(beam):
        google = beam.view_as(GoogleCloudOptions)
        checks += [
            Check("runner", f"Dataflow needs --{option}", False)
            for option in ("project", "region", "temp_location")
            if not getattr(google, option)
        ]
        if not beam.view_as(WorkerOptions).sdk_container_image:
            text = "without --sdk_container_image each worker installs torch as it starts"
            checks.append(Check("runner", text, False))
    endpoint = beam.view_as(PortableOptions).job_endpoint
    if endpoint:
        checks.append(_answers(endpoint))
    return checks


def _answers(endpoint: str) -> Check:
    """Whether something listens at a job server's HOST:PORT."""
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.create_connection((host or "localhost", int(port)), _ANSWER_S):
            return Check("runner", f"the job server at {endpoint} answers")
    except (OSError, ValueError, OverflowError) as error:
        return Check("runner", f"no job server answers at {endpoint}: {error}", False)


def _there(path: str) -> Path:
    """A local path, or the nearest folder above it that exists."""
    place = Path(os.path.abspath(path))
    return next(folder for folder in (place, *place.parents) if folder.exists())


def writable(path: str) -> Check:
    """Whether a folder may be made, or written, at a local path."""
    there = _there(path)
    if not there.is_dir():
        return Check("atlas", f"{there} is a file, not a folder", False)
    if not os.access(there, os.W_OK | os.X_OK):
        return Check("atlas", f"{there} may not be written: choose another --atlas", False)
    return Check("atlas", f"{there} may be written")


def room(path: str, needed: float) -> Check:
    """Whether the disk of a local path has room for `needed` bytes."""
    free = shutil.disk_usage(_there(path)).free
    text = f"{human_bytes(free)} free, {human_bytes(needed)} still to be written"
    return Check("disk", text + ("" if needed < free else ": too little"), needed < free)


def _places(options: BuildOptions, elsewhere: bool) -> list[Check]:
    """Whether what lies elsewhere can be read, and workers see what lies here."""
    checks = []
    for option, place in (("--images", options.images), ("--atlas", options.atlas)):
        scheme = place.partition("://")[0] if "://" in place else ""
        extra, package = _STORES.get(scheme, ("", ""))
        if package and not _has(package):
            text = f"{option} {place}: needs pip install 'vladmap[{extra}]'"
            checks.append(Check("storage", text, False))
        if elsewhere and place and storage.is_local(place):
            text = f"{option} {place}: every worker must see it under this name"
            checks.append(Check("storage", text, False))
    return checks


def _has(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of a package above it
        return False
