"""A standalone Spark cluster on this machine, whose workers can be lost like machines."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.city import ROOT
from tests.pipeline.test_loopback import listening
from vladmap.photos.processes import with_this_package
from vladmap.pipeline.engines.server import loopback_words

Found = TypeVar("Found")

_LOCAL = "127.0.0.1"
_SPARK = "org.apache.spark.deploy"
LOST = "exited for a reason unrelated to the task"
"""What the job server says of a task that an executor had in its hands when it was lost."""
_BEGUN = re.compile(r"Starting task .* \(TID (\d+)\) \(.*, executor (\d+),")
_ENDED = re.compile(r"(?:Finished|Lost) task .* \(TID (\d+)\)|task .* \(TID (\d+)\) failed")
_SAYS_LOST = "-Dorg.slf4j.simpleLogger.log.org.apache.spark.scheduler.TaskSetManager=info"


@dataclass
class Cluster:
    """A master, its workers of one core each, and the pool that starts Python for all of them."""

    folder: Path
    jars: Path
    port: int
    pool_port: int
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def master(self) -> str:
        return f"spark://{_LOCAL}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of who uses it: all of it is on this machine, and it says `LOST`."""
        return os.environ | {"SPARK_LOCAL_IP": _LOCAL, "JDK_JAVA_OPTIONS": _SAYS_LOST}

    def _own_environment(self) -> dict[str, str]:
        """The environment of its Java processes: what Spark asks for, and loopback alone."""
        words = [*loopback_words(self.jars), "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        return self.environment | {
            "SPARK_HOME": str(self.folder),
            "SPARK_SCALA_VERSION": "2.12",
            "JDK_JAVA_OPTIONS": " ".join(words),
        }

    def add_worker(self) -> None:
        """Start another worker."""
        work = self.folder / f"work-{len(self.workers)}"
        words = [*("--host", _LOCAL, "--cores", "1", "--memory", "1g", "--webui-port", "0")]
        self.workers.append(
            self._java("worker.Worker", *words, "--work-dir", str(work), self.master)
        )

    def lose_worker(self, number: int) -> None:
        """End all that ran on a worker's machine at once: the worker, its executors, their Python.

        Nothing of it can say or finish anything: every process is killed.
        """
        pythons = self._pythons(number)
        os.killpg(self.workers[number].pid, signal.SIGKILL)
        for pid in pythons:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.workers[number].wait()

    def with_child(self, words: str) -> list[int]:
        """The workers whose Python has a child process with these words in its command."""
        parents = {each.parent for each in _processes() if words in each.words}
        if not parents:  # which is cheap to see, however often it is asked
            return []
        return [
            number
            for number, worker in enumerate(self.workers)
            if worker.poll() is None and parents & self._pythons(number)
        ]

    def busy(self, log: str) -> list[int]:
        """The workers that have a task in their hands by what the job server has said."""
        executors: dict[str, str] = {}
        for line in log.splitlines():
            if begun := _BEGUN.search(line):
                executors[begun[1]] = begun[2]
            elif ended := _ENDED.search(line):
                executors.pop(ended[1] or ended[2], None)
        words = [f"--executor-id {executor} " for executor in executors.values()]
        groups = {each.group for each in _processes() if any(word in each.words for word in words)}
        return [number for number, worker in enumerate(self.workers) if worker.pid in groups]

    def _pythons(self, number: int) -> set[int]:
        """The Python processes that a worker's executors have the pool start."""
        group, all_here = self.workers[number].pid, _processes()
        ports = {port for each in all_here if each.group == group for port in _ports(each.pid)}
        return {
            each.pid
            for each in all_here
            if any(f'SdkHarness("localhost:{port}"' in each.words for port in ports)
        }

    def _java(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        log = self.folder / f"{program}-{len(self.workers)}.log"
        with log.open("wb") as output:
            return subprocess.Popen(
                ["java", "-Xmx512m", "-cp", f"{self.jars}/*", f"{_SPARK}.{program}", *words],
                env=self._own_environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _python(self) -> subprocess.Popen[bytes]:
        words = ["-m", "vladmap.pipeline.loopback", "--service_port", str(self.pool_port)]
        with (self.folder / "pool.log").open("wb") as output:
            return subprocess.Popen(
                [sys.executable, *words],
                env=with_this_package(),
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextlib.contextmanager
def spark_cluster(folder: Path, jars: Path, workers: int) -> Iterator[Cluster]:
    """A cluster in a folder of its own, with the jars of Spark's job server."""
    folder.mkdir()
    (folder / "jars").symlink_to(jars)
    cluster = Cluster(folder, jars, *_free_ports(2))
    started = [
        cluster._java(
            "master.Master", *("--host", _LOCAL, "--port", str(cluster.port), "--webui-port", "0")
        ),
        cluster._python(),
    ]
    try:
        for port in (cluster.port, cluster.pool_port):
            awaited(lambda port=port: _answers(port), 120)  # type: ignore[misc]
        for _ in range(workers):
            cluster.add_worker()
        yield cluster
    finally:
        for process in (*cluster.workers, *started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def awaited(look: Callable[[], Found], most_s: float) -> Found:
    """What `look` finds once it finds something. Raises AssertionError after `most_s` without."""
    deadline = time.monotonic() + most_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"it has not happened in {most_s} s"
        time.sleep(0.1)
    return found


@dataclass(frozen=True)
class _Process:
    """A process of this machine: its id, those of its parent and its group, and its command."""

    pid: int
    parent: int
    group: int
    words: str


def _processes() -> list[_Process]:
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                words = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                # After the name, which may hold anything: state, parent, group.
                _, parent, group, *_ = (each / "stat").read_text().rpartition(") ")[2].split()
                found.append(_Process(int(each.name), int(parent), int(group), words))
    return found


def _ports(pid: int) -> set[int]:
    with contextlib.suppress(OSError):  # it has ended
        return {port for _, port in listening(pid)}
    return set()


def _free_ports(count: int) -> tuple[int, ...]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((_LOCAL, 0))
        return tuple(each.getsockname()[1] for each in sockets)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((_LOCAL, port), 1):
        return True
    return False
