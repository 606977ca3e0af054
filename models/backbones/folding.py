"""Folds batch normalisation into the convolution before it, and separates the two again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def fold(
    state: Mapping[str, Tensor], conv: str, norm: str, target: str, epsilon: float = 1e-5
) -> dict[str, Tensor]:
    """`<target>.weight` and `<target>.bias` of one convolution that replaces both.

    They are computed in float64, since rounding three factors in float32 would lose a digit.
    """
    gain = state[f"{norm}.weight"].double() / torch.sqrt(
        state[f"{norm}.running_var"].double() + epsilon
    )
    weight = state[f"{conv}.weight"].double() * gain[:, None, None, None]
    bias = state[f"{norm}.bias"].double() - gain * state[f"{norm}.running_mean"].double()
    return {f"{target}.weight": weight.float(), f"{target}.bias": bias.float()}


def unfold(
    weight: Tensor, bias: Tensor, conv: str, norm: str, epsilon: float = 1e-5
) -> dict[str, Tensor]:
    """A convolution with `weight` and a normalisation that only adds `bias`, the inverse of `fold`.

    Folded again they give `weight` and `bias` to the last bit: the variance is the float32 nearest
    to 1 - epsilon, so that the gain differs from 1 by less than half the spacing of float32.
    """
    one = torch.ones(len(bias))
    return {
        f"{conv}.weight": weight.detach()
        .float()
        .cpu()
        .clone(memory_format=torch.contiguous_format),
        f"{norm}.weight": one,
        f"{norm}.bias": bias.detach().float().cpu().clone(),
        f"{norm}.running_mean": torch.zeros_like(one),
        f"{norm}.running_var": (one.double() - epsilon).float(),
    }


def norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a batch normalisation's entries in a state dict."""
    return {f"{name}.{part}": (channels,) for part in NORM_PARTS}
