"""Running a model within the memory and the cores that there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch

from vladmap.models.base import Pixels

Described = TypeVar("Described")


def within_memory(
    describe: Callable[[Sequence[Pixels]], Iterable[Described]],
    images: Sequence[Pixels],
    limit: int,
) -> tuple[list[Described], int]:
    """What `describe` says of each (H, W, 3) uint8 image, and the batch size that fitted.

    A batch that does not fit the GPU's memory is halved and tried again. Raises
    torch.OutOfMemoryError where a single image does not fit.
    """
    found: list[Described] = []
    while len(found) < len(images):
        start = len(found)
        try:
            found.extend(describe(images[start : start + limit]))
        except torch.OutOfMemoryError:
            if limit == 1:
                raise
            limit = (limit + 1) // 2
            torch.cuda.empty_cache()
    return found, limit


def one_thread_a_call() -> None:
    """Let torch compute each call on one thread; calls from several threads use several cores.

    Sums over more threads differ in their last bits: one thread gives the same bytes on machines
    of any number of cores, and calls beside each other are faster than one call that is split.
    """
    torch.set_num_threads(1)
