"""`vladmap spark -- JOB ...` and `vladmap flink -- JOB ...`: a job of a build on an engine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vladmap.console.suggest import did_you_mean
from vladmap.jobs.command import Parser, guarded, parser, words
from vladmap.photos.processes import with_this_package
from vladmap.pipeline.command_options import END
from vladmap.pipeline.engines.engine import Engine
from vladmap.pipeline.stages import STAGES
from vladmap.schemas.rejects import UserError

_TEXT = """\
Run a build, or a stage of one, on {title}: start Beam's job server, add the options that reach it
to the job's own, and stop the server when the job has ended. It takes {java}, and Maven, which
fetches the server's jars once ({megabytes} MB).
"""
_EPILOG = """\
examples:
  vladmap {name} -- build --images photos --atlas atlas
  vladmap {name} --master 'local[4]' --heap 4g -- describe --atlas atlas
  vladmap {name} --master {cluster} -- build --images s3://b/photos --atlas s3://b/atlas \\
      --environment_type=EXTERNAL --environment_config=localhost:50000

docs/runners.md says what the machines of a cluster need.
"""
_TOLD = (0, 2, 129, 130, 143)
"""Exit codes of a job that has reported its own error, or has none."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Failed(Exception):
    """The job ended with an exit code not in _TOLD: the server's log may have the reason."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class EngineJob:
    """The job that runs other jobs on one engine."""

    engine: Engine

    def command_line(self) -> Parser:
        """What the job can be told, before the bare `--`."""
        facts = {
            name: getattr(self.engine, name)
            for name in ("name", "title", "java", "megabytes", "cluster")
        }
        made = parser(self.engine.name, _TEXT.format(**facts), epilog=_EPILOG.format(**facts))
        made.usage = f"vladmap {self.engine.name} [OPTIONS] -- JOB [OPTIONS OF THE JOB]"
        made.add_argument(
            "--master",
            default="local[2]",
            help="local[N]: N workers on this machine; else a cluster, for instance "
            f"{self.engine.cluster} (default: %(default)s)",
        )
        made.add_argument(
            "--heap", default="2g", help="memory of the job server (default: %(default)s)"
        )
        made.add_argument(
            "--server-log", metavar="FILE", help="keep what the job server says in a file"
        )
        return made

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run what stands after `--` on the engine; returns its exit code."""
        given = words(argv)
        cut = given.index(END) if END in given else len(given)
        parsed = self.command_line().parse_args(given[:cut])

        def work() -> int:
            from vladmap.pipeline.engines.server import job_server

            name, *rest = self._job(given[cut + 1 :])
            try:
                with job_server(
                    self.engine, parsed.master, heap=parsed.heap, log_file=parsed.server_log
                ) as options:
                    code = run(["-m", "vladmap.jobs.main", name, *options, *rest])
                    if code not in _TOLD:
                        raise _Failed(code)
                    return code
            except _Failed as failure:
                return failure.code

        return guarded(work, parsed)

    def _job(self, given: Sequence[str]) -> list[str]:
        """The job with its words. Raises UserError for none, or one that runs in no pipeline."""
        job = list(given[1:] if given[:1] == ["vladmap"] else given)
        usage = f"`vladmap {self.engine.name} -- build --images DIR --atlas DIR`"
        if not job:
            raise UserError(f"name a job after a bare `--`, as in {usage}")
        known = ["build", *STAGES]
        if job[0] not in known:
            hint = did_you_mean(job[0], known)
            raise UserError(f"{job[0]!r} is no job that runs on an engine{hint}; as in {usage}")
        return job


def run(program: Sequence[str]) -> int:
    """Run Python with these words to the program's end; returns its exit code.

    A signal to end is handed on to it, once for each time that it comes; the program reports the
    interruption, this process prints nothing. It ends with this process.
    """
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "vladmap.pipeline.engines.bound", str(os.getpid())),
            *(sys.executable, *program),
        ],
        env=with_this_package(),
        # Ctrl-C at a terminal goes to all that it runs: here it comes through us alone.
        start_new_session=True,
    )
    with _handing_on(process):
        code = process.wait()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _handing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    before = {
        number: signal.signal(number, lambda given, _: process.send_signal(given))
        for number in _SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
