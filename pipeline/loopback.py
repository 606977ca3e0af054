"""Beam's services for its workers, on this machine alone.

Beam 2.77 serves work, data and state to whoever asks, on all of a machine's interfaces and without
credentials: who reaches them reads the photographs, and who reaches a pool of workers has it run
code of his own. Wherever both ends are on one machine, they belong on the loopback interface.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

_EVERYWHERE = ("[::]:", "0.0.0.0:", ":::")


def bind_to_loopback() -> None:
    """From now on gRPC's servers in this process listen on the loopback interface alone."""
    kind: Any = type(grpc.server(ThreadPoolExecutor(1)))
    original = kind.add_insecure_port
    if getattr(original, "is_loopback", False):
        return

    def add_insecure_port(self: Any, address: str) -> int:
        for everywhere in _EVERYWHERE:
            if address.startswith(everywhere):
                address = "localhost:" + address.removeprefix(everywhere)
        return int(original(self, address))

    add_insecure_port.is_loopback = True  # type: ignore[attr-defined]
    kind.add_insecure_port = add_insecure_port


def main() -> None:
    """Beam's pool of workers, for executors of Spark or Flink on the same machine.

    python -m vladmap.pipeline.loopback --service_port 50000
    """
    from apache_beam.runners.worker import worker_pool_main

    bind_to_loopback()
    worker_pool_main.main(sys.argv[1:])


if __name__ == "__main__":
    main()
