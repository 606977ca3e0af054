"""Restrict Beam's services for its workers to the loopback interface.

Beam 2.77 opens the ports for work, data and state on all network interfaces and without
authentication: anyone who reaches them can read the photographs, and can have a pool of workers run
any code. If driver and workers are on one machine the loopback interface is enough.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from vladmap.photos.processes import python_of_path

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
