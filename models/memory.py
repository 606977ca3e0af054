"""Running a model within the memory and the cores that there are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.base import DescriptorModel, Floats, Pixels


def describe_within_memory(
    model: DescriptorModel, images: Sequence[Pixels], limit: int
) -> tuple[Floats, int]:
    """Descriptors of (H, W, 3) uint8 images, and the batch size that fitted.

    A batch that does not fit the GPU's memory is halved and tried again. Raises
    torch.OutOfMemoryError where a single image does not fit.
    """
    found = []
    start = 0
    while start < len(images):
        try:
            found.append(model.describe(images[start : start + limit]))
            start += limit
        except torch.OutOfMemoryError:
            if limit == 1:
                raise
            limit = (limit + 1) // 2
            torch.cuda.empty_cache()
    if not found:
        return np.zeros((0, model.spec.dimension), np.float32), limit
    return np.concatenate(found), limit


def one_thread_a_call() -> None:
    """Let torch compute each call on one thread; calls from several threads use several cores.

    Sums over more threads differ in their last bits: one thread gives the same bytes on machines
    of any number of cores, and calls beside each other are faster than one call that is split.
    """
    torch.set_num_threads(1)
