from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.models.synthetic import lite0_state
from vladmap.models.backbones.efficientnet_lite import (
    EfficientNetLite0,
    SameConv2d,
    pretrained_path,
)

# kernel, stride, has an expansion, of blocks 0 to 10, as published
BLOCKS = [
    (3, 1, False),
    (3, 2, True), (3, 1, True),
    (5, 2, True), (5, 1, True),
    (3, 2, True), (3, 1, True), (3, 1, True),
    (5, 1, True), (5, 1, True), (5, 1, True),
]  # fmt: skip


def _convolve(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    kernel = weight.shape[-1]
    for axis in (3, 2):
        length = x.shape[axis]
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        sides = (total // 2, total - total // 2)
        x = functional.pad(x, (*sides, 0, 0) if axis == 3 else (0, 0, *sides))
    return functional.conv2d(x, weight, stride=stride, groups=groups)


def _unfolded(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    def normalised(y: Tensor, name: str) -> Tensor:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return functional.batch_norm(y, mean, variance, weight, bias, eps=1e-3)

    x = functional.relu6(normalised(_convolve(x, state["_conv_stem.weight"], 2), "_bn0"))
    for i, (_, stride, expands) in enumerate(BLOCKS):
        name, y = f"_blocks.{i}.", x
        if expands:
            y = _convolve(y, state[f"{name}_expand_conv.weight"], 1)
            y = functional.relu6(normalised(y, f"{name}_bn0"))
        y = _convolve(y, state[f"{name}_depthwise_conv.weight"], stride, y.shape[1])
        y = functional.relu6(normalised(y, f"{name}_bn1"))
        y = normalised(_convolve(y, state[f"{name}_project_conv.weight"], 1), f"{name}_bn2")
        x = x + y if stride == 1 and x.shape == y.shape else y
    return x


@pytest.mark.parametrize("size", [(96, 128), (75, 101)])
def test_folding_batch_norm_leaves_the_features_as_they_were(size: tuple[int, int]) -> None:
    state = lite0_state()
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        folded = EfficientNetLite0(state).eval()(x)
        expected = _unfolded(x.double(), {name: t.double() for name, t in state.items()})
    assert folded.shape == (2, 112, -(-size[0] // 16), -(-size[1] // 16))
    assert (folded - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_same_padding_puts_the_odd_pixel_right_and_below() -> None:
    # By hand: four pixels, kernel 3, stride 2 need one padded pixel, TensorFlow's is the last.
    conv = SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(conv.weight)
    row = torch.tensor([1.0, 2.0, 4.0, 8.0])
    with torch.inference_mode():
        result = conv((row * torch.tensor([[1.0], [0], [0], [0]]))[None, None])
    assert result[0, 0].tolist() == [[7.0, 12.0], [0.0, 0.0]]


def test_only_what_it_computes_with_is_kept_of_the_installed_weights() -> None:
    assert pretrained_path().is_file()
    parameters = sum(p.numel() for p in EfficientNetLite0(lite0_state()).parameters())
    assert 0.66e6 < parameters < 0.72e6
    assert not any(name.startswith(("_blocks.11.", "_fc.")) for name in lite0_state())
