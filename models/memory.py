"""Runs a model within the available memory, on one core a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from vladmap.models.base import Pixels

Result = TypeVar("Result")
Images = TypeVar("Images", Sequence[Pixels], Tensor)


def within_memory(
    describe: Callable[[Images], Iterable[Result]],
    images: Images,
    limit: int,
) -> tuple[list[Result], int]:
    """(results of `describe` for each (H, W, 3) uint8 image, the batch size that fitted).

    `images` are a sequence, or one stack (B, H, W, 3) of them.

    A batch that does not fit into the GPU's memory is halved and tried again. Raises
    torch.OutOfMemoryError where a single image does not fit.
    """
    results: list[Result] = []
    while len(results) < len(images):
        start = len(results)
        found: Iterable[Result] | None = None
        try:
            found = describe(images[start : start + limit])
        except torch.OutOfMemoryError:
            if limit == 1:
                raise
        if found is not None:
            results.extend(found)
        else:  # here, where the error no longer holds what was computed
            limit = (limit + 1) // 2
            torch.cuda.empty_cache()
    return results, limit


def one_thread_a_call() -> None:
    """Let torch compute each call on one thread; calls from several threads use several cores.

    The last bits of a sum depend on the number of threads; with one thread, results are the same on
    any machine. Parallel calls are also faster than one call on several threads.
    """
    torch.set_num_threads(1)
