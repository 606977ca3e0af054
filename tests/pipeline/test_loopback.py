"""Who can reach Beam's services."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apache_beam as beam
import grpc
import pytest
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    endpoints_pb2,
)
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

from vladmap.photos.processes import python_of_path
from vladmap.pipeline import launch
from vladmap.pipeline.loopback import bind_to_loopback, workers_ended

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")

_LOOPBACK = {"0100007F", "0" * 24 + "01000000", "0000000000000000FFFF00000100007F"}
_LISTENS = "0A"


def listening(pid: int | str = "self") -> list[tuple[str, int]]:
    """(address in hexadecimal, port) of the sockets that a process listens on."""
    own = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(os.readlink(descriptor))
        except OSError:
            continue
    sockets = []
    for table in ("tcp", "tcp6"):
        path = Path(f"/proc/{pid}/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if fields[3] == _LISTENS and f"socket:[{fields[9]}]" in own:
                address, _, port = fields[1].partition(":")
                sockets.append((address, int(port, 16)))
    return sockets


def test_the_direct_runners_services_listen_on_loopback_alone(tmp_path: Path) -> None:
    """Issue 19, 19: control, data, state and logging listened on all interfaces."""

    def note(element: int) -> None:
        lines = [address for address, _ in listening()]
        (tmp_path / "addresses").write_text("\n".join(lines))

    words = ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]
    launch.run(words, "a", lambda pipeline: pipeline | beam.Create([1]) | beam.Map(note))
    addresses = (tmp_path / "addresses").read_text().splitlines()
    assert addresses
    assert set(addresses) <= _LOOPBACK


def test_a_port_of_the_loopback_interface_is_whole() -> None:
    """`localhost` is two addresses: a port was taken on the free one, and its name led to both."""
    bind_to_loopback()
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("[::]:0")
    server.start()
    try:
        [address] = [address for address, each in listening() if each == port]
        assert address in _LOOPBACK
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
    finally:
        server.stop(None)


@pytest.mark.medium
def test_the_pool_of_workers_listens_on_loopback_alone() -> None:
    """Issue 19, 19: whoever reached Beam's pool could run code on its machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    pool = subprocess.Popen(
        [sys.executable, "-m", "vladmap.pipeline.loopback", "--service_port", str(port)],
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while not (sockets := listening(pool.pid)) and time.monotonic() < end:
            time.sleep(0.1)
        assert {each for _, each in sockets} == {port}
        assert {address for address, _ in sockets} <= _LOOPBACK
    finally:
        pool.send_signal(signal.SIGKILL)
        pool.wait()


def test_workers_that_beam_started_for_a_pipeline_end_with_it() -> None:
    """Beam leaves them to the engine, which keeps each pipeline's for ten minutes."""
    bind_to_loopback()
    endpoint = endpoints_pb2.ApiServiceDescriptor(url="localhost:1")
    request = beam_fn_api_pb2.StartWorkerRequest(worker_id="one", control_endpoint=endpoint)
    with python_of_path(), workers_ended():
        address, server = BeamFnExternalWorkerPoolServicer.start(use_process=True)
        with grpc.insecure_channel(address) as channel:
            pool = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
            assert not pool.StartWorker(request).error
        deadline = time.monotonic() + 20
        while not _workers("localhost:1"):  # between fork and exec it has another name
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.stop(0)
    assert _workers("localhost:1") == []


def _workers(endpoint: str) -> list[str]:
    """The commands of this process's children that are workers of an endpoint."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            with contextlib.suppress(FileNotFoundError):
                words = Path(f"/proc/{child}/cmdline").read_text()
                found += [words] if f'SdkHarness("{endpoint}"' in words else []
    return found
