"""Batches that do not fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from vladmap.models.base import Pixels
from vladmap.models.memory import within_memory

IMAGES = [np.full((1, 1, 3), value, np.uint8) for value in range(10)]


def holding(most: int, sizes: list[int]) -> Callable[[Sequence[Pixels]], list[int]]:
    """Describes an image by its first number; has memory for `most` of them."""

    def describe(images: Sequence[Pixels]) -> list[int]:
        sizes.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError
        return [int(image[0, 0, 0]) for image in images]

    return describe


def test_a_batch_that_does_not_fit_is_halved_and_what_fitted_is_told() -> None:
    sizes: list[int] = []
    found, limit = within_memory(holding(3, sizes), IMAGES, 8)
    assert found == list(range(10))
    assert limit == 2
    # 8 and 4 do not fit; from then on 2 at a time, and nothing is described twice.
    assert sizes == [8, 4, 2, 2, 2, 2, 2]


def test_an_image_that_does_not_fit_alone_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        within_memory(holding(0, []), IMAGES, 4)
