"""Flags of the whole process, set by many threads at once."""

from __future__ import annotations

import torch

from vladmap.weights.devices import convolutions


def flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32


def test_convolutions_stay_exact_until_the_last_of_overlapping_blocks_has_ended() -> None:
    before = flags()
    first, second = convolutions(), convolutions()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # as where another thread ends first
    assert flags() == (True, False)
    second.__exit__(None, None, None)
    assert flags() == before
