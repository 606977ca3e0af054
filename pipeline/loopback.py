"""Restrict Beam's services for its workers to the loopback interface.

Beam 2.77 opens the ports for work, data and state on all network interfaces and without
authentication: anyone who reaches them can read the photographs, and can have a pool of workers run
any code. If driver and workers are on one machine the loopback interface is enough.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from vladmap.photos.processes import ended, python_of_path

_EVERYWHERE = ("[::]:", "0.0.0.0:", ":::")
# Not "localhost", which is an IPv4 and an IPv6 address on most machines: where a port is taken on
# one, gRPC binds the other and only warns, and a client may then reach the wrong program.
_LOOPBACK = "127.0.0.1:"


def bind_to_loopback() -> None:
    """Make all later gRPC servers of this process listen on the loopback interface only."""
    kind: Any = type(grpc.server(ThreadPoolExecutor(1)))
    original = kind.add_insecure_port
    if getattr(original, "is_loopback", False):
        return

    def add_insecure_port(self: Any, address: str) -> int:
        for everywhere in _EVERYWHERE:
            if address.startswith(everywhere):
                address = _LOOPBACK + address.removeprefix(everywhere)
        return int(original(self, address))

    add_insecure_port.is_loopback = True  # type: ignore[attr-defined]
    kind.add_insecure_port = add_insecure_port


@contextlib.contextmanager
def workers_ended() -> Iterator[None]:
    """At the end of the block, end the processes that Beam's LOOPBACK has started in it.

    An engine keeps them for `--environment_cache_millis`, ten minutes, though it gives a pipeline
    workers of its own: a build had those of all its pipelines in memory, each with its model.
    """
    from apache_beam.runners.worker import worker_pool_main

    kind: Any = worker_pool_main.BeamFnExternalWorkerPoolServicer
    original, pools = kind.__init__, []

    def kept(self: Any, *words: Any, **named: Any) -> None:
        original(self, *words, **named)
        pools.append(self)

    kind.__init__ = kept
    try:
        yield
    finally:
        kind.__init__ = original
        for pool in pools:
            for process in list(pool._worker_processes.values()):
                ended(process)


def main() -> None:
    """Beam's pool of workers, for executors of Spark or Flink on the same machine.

    python -m vladmap.pipeline.loopback --service_port 50000
    """
    from apache_beam.runners.worker import worker_pool_main

    bind_to_loopback()
    with python_of_path():
        worker_pool_main.main(sys.argv[1:])


if __name__ == "__main__":
    main()
