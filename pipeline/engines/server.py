"""Beam's Java job server for an engine: started, used and stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from vladmap.photos.processes import ended, started, with_this_package
from vladmap.pipeline.engines.engine import Engine
from vladmap.pipeline.engines.jars import classpath
from vladmap.schemas.rejects import UserError

log = logging.getLogger("vladmap")

_RULES = Path(__file__).resolve().parent / "loopback.btm"
# The engines use internals of these packages, to which Java 17 denies access by default.
_OPENED = ("sun.nio.ch", "java.nio", "java.util", "java.lang.invoke", "java.lang")
# These loggers report as errors that workers disconnect at the end of a pipeline.
_SILENCED = (
    "runners.fnexecution.control.FnApiControlClient",
    "sdk.fn.data.BeamFnDataGrpcMultiplexer",
)
# This one says, at the level INFO, on which ports the server listens.
_SAYS_PORTS = "runners.jobsubmission.JobServerDriver"
_PORT = re.compile(r"\b(JobService|ArtifactStagingService) started on \S*:(\d+)\s*$", re.M)
# The vendored Netty would listen by system calls of its own, which no rule sees.
_NO_NATIVE_SOCKETS = "-Dorg.apache.beam.vendor.grpc.v1p60p1.io.netty.transport.noNative=true"
_START_SECONDS = 600  # some seconds of a processor, however many others want one
_STOP_SECONDS = 15
_TAIL_LINES = 30


@contextlib.contextmanager
def job_server(
    engine: Engine,
    master: str = "local[2]",
    *,
    heap: str = "2g",
    log_file: str | os.PathLike[str] | None = None,
) -> Iterator[list[str]]:
    """Run a job server and yield the pipeline options that reach it.

    With a `local[N]` master, workers are N Python processes on this machine, started by the
    pipeline's own process (Beam's LOOPBACK) as the `python` of its PATH; with any other, the caller
    adds `--environment_type` and what it needs. `heap` is the virtual machine's; the server's
    output goes to `log_file`, or a temporary file, and its last lines are logged when the block
    raises. The server listens on the loopback interface alone, and ends with this process.

    Raises UserError where Java or Maven is missing or the server does not start.
    """
    jars = classpath(engine)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(_log_file(log_file))
        stream = stack.enter_context(output.open("wb"))
        artifacts = stack.enter_context(tempfile.TemporaryDirectory(prefix="vladmap-"))
        server = started(
            [
                *(sys.executable, "-m", "vladmap.pipeline.engines.bound", str(os.getpid())),
                *("java", f"-Xmx{heap}", *_java_words(jars), *engine.java_words(master)),
                *("-cp", f"{jars}/*", engine.main_class, *engine.server_words(master)),
                # It has the system give it free ports, and says which: by the time that it listened
                # on one that we had found free, another program could, which would get the job.
                *("--job-host", "localhost", "--job-port", "0"),
                *("--artifact-port", "0", "--expansion-port", "-1"),
                *("--artifacts-dir", artifacts),
            ],
            env=with_this_package(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        stack.callback(_stop, server)
        try:
            job, artifact = _await_ports(engine, server, output)
            _warn_if_reachable(engine, (job, artifact))
            # Not "localhost", which may be an IPv6 address, too, where someone else listens.
            yield [
                "--runner=PortableRunner",
                f"--job_endpoint=127.0.0.1:{job}",
                f"--artifact_endpoint=127.0.0.1:{artifact}",
                *engine.pipeline_words(master),
            ]
        except Exception:
            if last := _tail(output):
                log.error("the %s job server's last lines:\n%s", engine.title, last)
            raise


def loopback_words(jars: Path) -> list[str]:
    """Words of a virtual machine that listens on the loopback interface where it would listen on
    all: the rules of `loopback.btm`. An address that a program names itself stays.

    Raises UserError where the folder of jars lacks the agent.
    """
    byteman = next(iter(sorted(jars.glob("byteman-*.jar"))), None)
    if byteman is None:
        raise UserError(f"{jars} is incomplete: delete it, and it is fetched again")
    return [f"-javaagent:{byteman}=script:{_RULES},boot:{byteman}", _NO_NATIVE_SOCKETS]


def _java_words(jars: Path) -> list[str]:
    """Words of the virtual machine of any engine."""
    return [
        *loopback_words(jars),
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        *(f"-Dorg.slf4j.simpleLogger.log.org.apache.beam.{name}=off" for name in _SILENCED),
        f"-Dorg.slf4j.simpleLogger.log.org.apache.beam.{_SAYS_PORTS}=info",
        *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
    ]


@contextlib.contextmanager
def _log_file(path: str | os.PathLike[str] | None) -> Iterator[Path]:
    if path is None:
        with tempfile.TemporaryDirectory(prefix="vladmap-") as folder:
            yield Path(folder, "server.log")
    else:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        yield Path(path)


def _await_ports(engine: Engine, server: subprocess.Popen[bytes], output: Path) -> tuple[int, int]:
    """The ports of the job and the artifact service, which the server says once it listens."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        # Before its output is read: what it wrote last is then in there.
        over = server.poll() is not None
        ports = dict(_PORT.findall(output.read_text(errors="replace")))
        if len(ports) == 2 and not over:
            return int(ports["JobService"]), int(ports["ArtifactStagingService"])
        if over:
            raise UserError(f"the {engine.title} job server ended with status {server.returncode}")
        if time.monotonic() > deadline:
            raise UserError(f"the {engine.title} job server did not start in {_START_SECONDS} s")
        time.sleep(0.1)


def _warn_if_reachable(engine: Engine, ports: Sequence[int]) -> None:
    """Warn where a port is open on more than 127.0.0.1: the rules have not reached this Java."""
    if any(_answers("127.0.0.2", port) for port in ports):
        log.warning(
            "the %s job server listens on all interfaces of this machine: who reaches its ports "
            "%s can have it run code; close them in the firewall",
            *(engine.title, " and ".join(map(str, ports))),
        )


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(_STOP_SECONDS)
    ended(server)


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    # Frames of Java's stack traces are left out: they would hide the messages.
    messages = [line for line in lines if not line.startswith("\tat ")]
    return "\n".join(messages[-_TAIL_LINES:])
