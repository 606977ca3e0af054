"""How many threads torch computes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_torch_thread(wanted: bool = True) -> Iterator[None]:
    """Within the block torch computes on one thread, unless `wanted` is false.

    A picture is hundreds of small operations. Shared among several threads, each operation waits
    for the slowest of them.
    """
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
