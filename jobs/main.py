"""The console script `vladmap`: the same as `python -m vladmap.jobs.<name>`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol, cast

from vladmap.console.suggest import did_you_mean
from vladmap.jobs import completion
from vladmap.jobs.command import EXIT_USER_ERROR, Parser, leave, words
from vladmap.pipeline.engines.engine import ENGINES
from vladmap.pipeline.stages import STAGES
from vladmap.schemas import VERSION

_ALIASES = {"verify-atlas": "check-atlas"}


class Job(Protocol):
    """What `load` returns: a module of this package, or the job of a stage."""

    def command_line(self) -> Parser:
        """The parser of the job."""

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the job with these words of a command line; returns the exit code."""


def jobs() -> dict[str, str]:
    """Every job and its line in `--help`; each stage of a build is one."""
    return {
        "build": "photographs in, atlas out: every stage",
        **{stage.name: stage.title for stage in STAGES.values()},
        **{name: f"any of these, on {engine.title}" for name, engine in ENGINES.items()},
        "models": "list the descriptor models, or what a checkpoint holds",
        "convert": "a checkpoint in anyone's layout to safetensors",
        "train": "learn a model from photographs and their GPS",
        "distil": "teach a backbone to see through weather, without labels",
        "evaluate": "measure how often a model finds the right place",
        "compare": "measure methods side by side: recall, bytes, time",
        "sample": "render a sample city with known truth",
        "worlds": "render cities on many days, to learn places from",
        "search": "the photographs of an atlas that are most alike",
        "localise": "where photographs were taken, by an atlas",
        "check-map": "compare an atlas with the truth",
        "route": "from one place to another along the photographs",
        "export": "a model beside photographs that fit it, for COLMAP",
        "completion": "print a shell's completion of these jobs and their options",
        "check-atlas": "check every file of an atlas, repair what is damaged",
    }


def load(name: str) -> Job:
    """The job of a name in `jobs`."""
    if name in STAGES:
        from vladmap.jobs.stages import StageJob

        return StageJob.of(STAGES[name])
    if name in ENGINES:
        from vladmap.jobs.engines import EngineJob

        return EngineJob(ENGINES[name])
    module: Any = importlib.import_module(f"vladmap.jobs.{name.replace('-', '_')}")
    return cast(Job, module)


def _usage() -> str:
    lines = [
        "usage: vladmap JOB [OPTIONS]",
        "",
        "Turns geotagged street-level photographs into an atlas: descriptors, a retrieval index,",
        "and georeferenced COLMAP models.",
        "",
        "jobs:",
        *(f"  {name:<12} {text}" for name, text in jobs().items()),
        "",
        "`vladmap JOB --help` teaches each. To begin:",
        "  vladmap sample city && vladmap build --images city/images --atlas atlas",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch to a job; returns its exit code."""
    if completion.is_asked():
        completion.complete(jobs(), load)
    arguments = words(argv)
    if arguments and arguments[0] == "--version":
        print(f"vladmap {VERSION}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if arguments else EXIT_USER_ERROR
    name, *rest = arguments
    name = _ALIASES.get(name, name)
    if name not in jobs():
        hint = did_you_mean(name, jobs())
        print(f"vladmap: no job is called {name!r}{hint} (see `vladmap --help`)", file=sys.stderr)
        return EXIT_USER_ERROR
    return load(name).main(rest)


def command(*job: str) -> NoReturn:
    """The console script; with the name of a job, that job's own program."""
    leave(lambda: main([*job, *words(None)]))


if __name__ == "__main__":
    command()
