"""The console script `vladmap`: the same as `python -m vladmap.jobs.<name>`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from vladmap.console.suggest import did_you_mean
from vladmap.jobs import completion
from vladmap.jobs.command import EXIT_USER_ERROR, leave, words
from vladmap.schemas import VERSION

JOBS = {
    "build": "photographs in, atlas out: every stage",
    "ingest": "read, check and place the photographs",
    "describe": "compute global descriptors",
    "index": "build the FAISS index",
    "pair": "find the image pairs worth matching",
    "verify": "local features, matches, two-view geometry",
    "reconstruct": "map each tile with COLMAP",
    "merge": "join the tiles' models, write poses",
    "report": "write the atlas's report",
    "models": "list the descriptor models, or what a checkpoint holds",
    "convert": "a checkpoint in anyone's layout to safetensors",
    "train": "learn a model from photographs and their GPS",
    "distil": "teach a backbone to see through weather, without labels",
    "evaluate": "measure how often a model finds the right place",
    "compare": "measure methods side by side: recall, bytes, time",
    "sample": "render a sample city with known truth",
    "worlds": "render cities on many days, to learn places from",
    "check-map": "compare an atlas with the truth",
    "export": "a model beside photographs that fit it, for COLMAP",
    "completion": "print a shell's completion of these jobs and their options",
    "check-atlas": "check every file of an atlas, repair what is damaged",
}

_ALIASES = {"verify-atlas": "check-atlas"}


def _usage() -> str:
    lines = [
        "usage: vladmap JOB [OPTIONS]",
        "",
        "Turns geotagged street-level photographs into an atlas: descriptors, a retrieval index,",
        "and georeferenced COLMAP models.",
        "",
        "jobs:",
        *(f"  {name:<12} {text}" for name, text in JOBS.items()),
        "",
        "`vladmap JOB --help` teaches each. To begin:",
        "  vladmap sample city && vladmap build --images city/images --atlas atlas",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch to a job; returns its exit code."""
    if completion.is_asked():
        completion.complete(JOBS)
    arguments = words(argv)
    if arguments and arguments[0] == "--version":
        print(f"vladmap {VERSION}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if arguments else EXIT_USER_ERROR
    name, *rest = arguments
    name = _ALIASES.get(name, name)
    if name not in JOBS:
        hint = did_you_mean(name, JOBS)
        print(f"vladmap: no job is called {name!r}{hint} (see `vladmap --help`)", file=sys.stderr)
        return EXIT_USER_ERROR
    job = importlib.import_module(f"vladmap.jobs.{name.replace('-', '_')}")
    code: int = job.main(rest)
    return code


def command() -> NoReturn:
    """The console script."""
    leave(main)


if __name__ == "__main__":
    command()
