"""Apache Spark on this machine: Beam's Spark job server, started, used and stopped.

    python -m vladmap.pipeline.spark -- vladmap build --images DIR --atlas DIR

starts a Spark job server, runs the command after `--` with the options that reach the server, and
stops the server. Maven fetches the server's jars once (`spark/pom.xml`). `--master` names a
cluster; the environment of its workers is then among the command's own options (docs/runners.md).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from vladmap.pipeline.loopback import bind_to_loopback
from vladmap.schemas.rejects import UserError

log = logging.getLogger("vladmap")

_POM = Path(__file__).resolve().parent.parent / "spark" / "pom.xml"
_MAIN_CLASS = "org.apache.beam.runners.spark.SparkJobServerDriver"
# Spark uses internals of these packages, to which Java 17 denies access by default.
_OPENED = ("sun.nio.ch", "java.nio", "java.util", "java.lang.invoke", "java.lang")
# These loggers report as errors that workers disconnect at the end of a pipeline.
_SILENCED = (
    "runners.fnexecution.control.FnApiControlClient",
    "sdk.fn.data.BeamFnDataGrpcMultiplexer",
)
_INSTALL = "on Debian and Ubuntu: apt-get install openjdk-17-jre-headless maven"
_START_SECONDS = 120
_STOP_SECONDS = 15
_TAIL_LINES = 30
_TOLD = (0, 2, 129, 130, 143)
"""Exit codes of a command that has reported its own error, or has none."""
# Without this, Beam starts new workers for each of Spark's stages, and each loads its model again.
_ENVIRONMENT_CACHE = "--environment_cache_millis=600000"


def classpath() -> Path:
    """Folder of the job server's jars, fetched by Maven where they are not there yet.

    The folder is named after the digest of `spark/pom.xml`, so that a new pom fetches anew, and is
    renamed into place, so that an interrupted download is not taken for a whole one.

    Raises UserError where Java, Maven or the pom is missing, or Maven fails.
    """
    if not _POM.is_file():
        raise UserError(f"{_POM} is not there: run this in a checkout of vladmap")
    _require("java", "Spark 3.5 runs on Java 11 or 17")
    folder = _POM.parent / "target" / hashlib.blake2b(_POM.read_bytes(), digest_size=8).hexdigest()
    if folder.is_dir():
        return folder
    maven = _require("mvn", "the jars of the Spark job server come from Maven")
    log.info("fetching the Spark job server's jars to %s (240 MB, once)", folder)
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
        jars = Path(partial, "jars")
        command = [
            *(maven, "--quiet", "--batch-mode", "--file", str(_POM)),
            "-Dmaven.wagon.http.retryHandler.count=5",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={jars}",
            "dependency:copy-dependencies",
        ]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode != 0:
            raise UserError(
                f"Maven could not fetch the Spark job server: {_maven_error(done.stdout)}; "
                f"see why with `mvn -f {_POM} dependency:copy-dependencies`"
            )
        with contextlib.suppress(FileExistsError):  # another process was faster
            jars.rename(folder)
    return folder


@contextlib.contextmanager
def spark_job_server(
    master: str = "local[2]", *, heap: str = "2g", log_file: str | os.PathLike[str] | None = None
) -> Iterator[list[str]]:
    """Run a Spark job server and yield the pipeline options that reach it.

    With a `local[N]` master, workers are N Python processes on this machine, started by the
    pipeline's own process (Beam's LOOPBACK); with any other, the caller adds
    `--environment_type` and what it needs. `heap` is the JVM's; the server's output goes to
    `log_file`, or a temporary file, and its last lines are logged when the block raises.

    Raises UserError where Java or Maven is missing or the server does not start.
    """
    jars = classpath()
    bind_to_loopback()  # the workers of a pipeline in this process are on this machine
    (job_port, artifact_port), cores = _free_ports(2), _local_cores(master)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(_log_file(log_file))
        stream = stack.enter_context(output.open("wb"))
        artifacts = stack.enter_context(tempfile.TemporaryDirectory(prefix="vladmap-spark-"))
        server = subprocess.Popen(
            [
                *("java", f"-Xmx{heap}", "-Dspark.ui.enabled=false"),
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                *(f"-Dorg.slf4j.simpleLogger.log.org.apache.beam.{name}=off" for name in _SILENCED),
                *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
                # The name of this machine need not resolve to an address that local Spark can use.
                *(
                    ("-Dspark.driver.host=localhost", "-Dspark.driver.bindAddress=127.0.0.1")
                    if cores
                    else ()
                ),
                *("-cp", f"{jars}/*", _MAIN_CLASS, "--spark-master-url", master),
                *("--job-host", "localhost", "--job-port", str(job_port)),
                *("--artifact-port", str(artifact_port), "--expansion-port", "-1"),
                *("--artifacts-dir", artifacts),
            ],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(_stop, server)
        try:
            _await_ports(server, (job_port, artifact_port))
            options = [
                "--runner=PortableRunner",
                f"--job_endpoint=localhost:{job_port}",
                f"--artifact_endpoint=localhost:{artifact_port}",
                _ENVIRONMENT_CACHE,
            ]
            if cores:
                stack.enter_context(_this_python_first())
                options += [
                    "--environment_type=LOOPBACK",
                    # Processes, as on a cluster, where threads of this process are the default.
                    "--experiments=use_loopback_process_worker",
                    f"--sdk_worker_parallelism={cores}",
                ]
            yield options
        except Exception:
            if last := _tail(output):
                log.error("the Spark job server's last lines:\n%s", last)
            raise


def _require(program: str, reason: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise UserError(f"{program} is not on the PATH: {reason} ({_INSTALL})")
    return path


def _maven_error(output: str) -> str:
    for line in output.splitlines():
        if "[ERROR]" in line:
            return line.partition("[ERROR]")[2].partition("-> [Help")[0].strip()
    return output.strip()[-300:]


def _local_cores(master: str) -> int:
    """Cores of a `local`, `local[N]` or `local[*]` master; 0 for a cluster."""
    match = re.match(r"local(?:\[(\d+|\*))?", master)
    if match is None:
        return 0
    return os.cpu_count() or 1 if match[1] == "*" else int(match[1] or 1)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def _log_file(path: str | os.PathLike[str] | None) -> Iterator[Path]:
    if path is None:
        with tempfile.TemporaryDirectory(prefix="vladmap-spark-") as folder:
            yield Path(folder, "server.log")
    else:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        yield Path(path)


@contextlib.contextmanager
def _this_python_first() -> Iterator[None]:
    """Put this interpreter first in PATH: Beam starts its workers as `python`."""
    before = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), before))
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _await_ports(server: subprocess.Popen[bytes], ports: Sequence[int]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    for port in ports:
        while True:
            if server.poll() is not None:
                raise UserError(f"the Spark job server ended with status {server.returncode}")
            with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
                break
            if time.monotonic() > deadline:
                raise UserError(f"the Spark job server did not start in {_START_SECONDS} s")
            time.sleep(0.1)


def _stop(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(_STOP_SECONDS)
            return


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    # Frames of Java's stack traces are left out: they would hide the messages.
    messages = [line for line in lines if not line.startswith("\tat ")]
    return "\n".join(messages[-_TAIL_LINES:])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vladmap.pipeline.spark",
        description="Run a command with a Spark job server's pipeline options added to it.",
    )
    parser.add_argument("--master", default="local[2]", help="Spark master (default: %(default)s)")
    parser.add_argument("--heap", default="2g", help="of the server's JVM (default: %(default)s)")
    parser.add_argument("--log", metavar="FILE", help="keep the server's output here")
    parser.add_argument("command", nargs="+", help="the command, after `--`")
    return parser


def _run(command: Sequence[str]) -> int:
    """Run a command to its end; returns its exit code.

    SIGTERM is passed on to the command; Ctrl-C reaches it without our help. Raises
    CalledProcessError for an exit code not in _TOLD: the server's log may then have the reason.
    """
    process = subprocess.Popen(command)
    try:
        code = process.wait()
    except BaseException as end:
        if not isinstance(end, KeyboardInterrupt):
            process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    if code in _TOLD:
        return code
    raise subprocess.CalledProcessError(code, command)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command on Spark; returns its exit code, or 2 for what the user can mend."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGTERM, _end)  # so that the server does not outlive us
    try:
        with spark_job_server(parsed.master, heap=parsed.heap, log_file=parsed.log) as options:
            return _run([*parsed.command, *options])
    except UserError as error:
        print(f"vladmap: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return error.returncode if error.returncode > 0 else 128 - error.returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
