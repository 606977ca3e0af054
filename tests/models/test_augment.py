from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.models.synthetic import photographs
from vladmap.models.training.augment import augment, moved


def images(count: int = 5) -> Tensor:
    return torch.from_numpy(np.stack(photographs(count, 90, 64)))


def seeds(epoch: int, count: int = 5) -> list[tuple[int, ...]]:
    return [(0, epoch, n) for n in range(count)]


def test_the_same_seed_gives_the_same_picture_whatever_else_is_in_the_batch() -> None:
    pictures = images()
    together = augment(pictures, seeds(1))
    assert together.shape == pictures.shape
    assert together.dtype == torch.uint8
    assert torch.equal(together, augment(pictures, seeds(1)))
    alone = [augment(pictures[n : n + 1], seeds(1)[n : n + 1]) for n in range(5)]
    # To the rounding of a grey level: sums are not added up in the same order.
    assert (together.int() - torch.cat(alone).int()).abs().max() <= 1


def test_another_epoch_gives_other_pictures() -> None:
    pictures = images()
    first, second = augment(pictures, seeds(1)), augment(pictures, seeds(2))
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_strength_scales_how_far_pictures_are_from_what_they_were() -> None:
    pictures = images(40)
    far = [
        float((augment(pictures, seeds(0, 40), strength).float() - pictures).abs().mean())
        for strength in (0.0, 0.3, 1.0)
    ]
    assert far[0] == 0
    assert far[0] < far[1] < far[2]
    with pytest.raises(ValueError, match="strength"):
        augment(pictures, seeds(0, 40), 3.0)


@pytest.mark.parametrize("value", [0, 255])
def test_black_white_and_tiny_pictures_are_borne(value: int) -> None:
    flat = torch.full((60, 13, 9, 3), value, dtype=torch.uint8)
    assert augment(flat, seeds(0, 60), 2.0).shape == flat.shape


def test_most_of_a_picture_is_still_its_own() -> None:
    """What is learnt from must be there: the picture correlates with what it was."""
    pictures = images(60)
    changed = augment(pictures, seeds(3, 60)).float().mean(dim=3).flatten(1)
    before = pictures.float().mean(dim=3).flatten(1)
    own, other = (
        torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a, b, strict=True)])
        for a, b in ((before, changed), (before, changed.roll(1, 0)))
    )
    assert float(own.nanmedian()) > float(other.nanmedian()) + 0.2


def test_aligned_nothing_moves_and_nothing_is_hidden() -> None:
    """A step from dark to bright stays where it is, whatever light falls on it."""
    step = torch.zeros(60, 64, 96, 3, dtype=torch.uint8)
    step[:, :, 48:] = 200
    changed = augment(step, seeds(0, 60), aligned=True).float().mean(dim=(1, 3))
    rise = changed[:, 1:] - changed[:, :-1]
    assert ((rise[:, 40:55].argmax(dim=1) + 40 - 47).abs() <= 2).float().mean() > 0.9


def test_a_map_moves_with_its_image() -> None:
    """A map that is the picture itself, coarser: what it says of the moved picture holds."""
    ramp = torch.arange(96).float()
    across, down = ramp.expand(64, 96), torch.arange(64).float()[:, None].expand(64, 96)
    pictures = torch.stack([across, down, across], dim=2).byte().expand(20, 64, 96, 3)
    maps = functional.avg_pool2d(pictures.permute(0, 3, 1, 2).float(), 8)
    seen, mapped = moved(pictures, maps, seeds(0, 20))
    told = functional.avg_pool2d(seen.permute(0, 3, 1, 2).float(), 8)
    inner = (told - mapped)[:, :, 1:-1, 1:-1].abs()
    assert float(inner.max()) < 1.5
    assert float((seen.float() - pictures.float()).abs().mean()) > 3
    assert moved(pictures, maps, seeds(0, 20), 0.0)[0] is pictures
