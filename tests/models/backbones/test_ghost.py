from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.models import networks
from vladmap.models.aggregations.netvlad import NetVLAD
from vladmap.models.backbones import ghost, vgg
from vladmap.models.backbones.ghost import GhostDilated, _Ghost


def test_a_ghost_module_is_its_definition_in_loops() -> None:
    torch.manual_seed(0)
    module = _Ghost(3, 6, dilation=2, active=True).double()
    x = torch.randn(1, 3, 5, 6).double()
    expected = torch.zeros(6, 5, 6).double()
    for c in range(3):  # the intrinsic maps
        for i in range(5):
            for j in range(6):
                value = module.primary.bias[c] + module.primary.weight[c, :, 0, 0] @ x[0, :, i, j]
                expected[c, i, j] = value.clamp(min=0)
    for c in range(3):  # their ghosts, two cells apart
        for i in range(5):
            for j in range(6):
                value = module.cheap.bias[c].clone()
                for di in range(3):
                    for dj in range(3):
                        y, z = i + 2 * di - 2, j + 2 * dj - 2
                        if 0 <= y < 5 and 0 <= z < 6:
                            value += module.cheap.weight[c, 0, di, dj] * expected[c, y, z]
                expected[3 + c, i, j] = value.clamp(min=0)
    assert torch.allclose(module(x)[0], expected, atol=1e-12)


def test_the_folded_network_is_its_layers_with_their_normalisations() -> None:
    state = networks.seeded(ghost.shapes(), seed=1)
    x = torch.randn(1, 3, 64, 80, generator=torch.Generator().manual_seed(1))

    def conv(y: torch.Tensor, name: str, **options: int) -> torch.Tensor:
        return networks.conv_norm(y, state, f"{name}.conv", f"{name}.norm", **options)

    def module(y: torch.Tensor, name: str, dilation: int, active: bool) -> torch.Tensor:
        primary = conv(y, f"{name}.primary")
        primary = primary.relu() if active else primary
        cheap = conv(
            primary,
            f"{name}.cheap",
            padding=dilation,
            dilation=dilation,
            groups=primary.shape[1],
        )
        return torch.cat([primary, cheap.relu() if active else cheap], dim=1)

    y = conv(x.double(), "stem", stride=2, padding=1).relu()
    for i, (kernel, _, _, stride, dilation) in enumerate(ghost._BOTTLENECKS):
        name = f"blocks.{i}"
        z = module(y, f"{name}.expand", dilation, active=True)
        pad = {"stride": stride, "padding": kernel // 2}
        if stride > 1:
            z = conv(z, f"{name}.strided", groups=z.shape[1], **pad)
        z = module(z, f"{name}.project", dilation, active=False)
        if f"{name}.shortcut.0.conv.weight" in state:
            y = conv(y, f"{name}.shortcut.0", groups=y.shape[1], **pad)
            y = conv(y, f"{name}.shortcut.1")
        y = y + z
    expected = module(y, "head", 2, active=False)
    with torch.inference_mode():
        found = GhostDilated(state).eval()(x)
    assert found.shape == (1, ghost.CHANNELS, 4, 5)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_training_starts_from_the_same_weights_for_the_same_seed() -> None:
    one, again, other = (ghost.initial_state(seed) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["stem.conv.weight"], other["stem.conv.weight"])
    assert {name: tuple(t.shape) for name, t in one.items()} == ghost.shapes()


def clusters_of(channels: int) -> NetVLAD:
    return NetVLAD(torch.ones(64, channels), torch.ones(64, channels), None)


def cost(network: nn.Module, aggregation: nn.Module, width: int, height: int) -> tuple[int, int]:
    """Floating-point operations for one image, a multiply-add being two, and numbers to keep."""
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        aggregation(network(torch.zeros(1, 3, height, width)))
    modules = (network, aggregation)
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    return counter.get_total_flops(), sum(tensor.numel() for tensor in tensors)


def test_operations_and_parameters_are_counted_as_by_hand() -> None:
    zeros = {name: torch.zeros(shape) for name, shape in vgg.shapes().items()}
    flops, parameters = cost(vgg.VGG16(zeros), clusters_of(512), 64, 32)
    # Nine multiply-adds a weight at every pixel of the map; halved sides after each pool.
    widths = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    widths += [(256, 512)] + 5 * [(512, 512)]
    pixels = 2 * [64 * 32] + 2 * [32 * 16] + 3 * [16 * 8] + 3 * [8 * 4] + 3 * [4 * 2]
    convolutions = sum(9 * a * b * p for (a, b), p in zip(widths, pixels, strict=True))
    netvlad = 2 * 64 * 512 * 4 * 2  # scores and sums of 8 cells
    assert flops == 2 * (convolutions + netvlad)
    assert parameters == 14_714_688 + 2 * 64 * 512 + 64


@pytest.mark.medium
def test_ghost_dil_netvlad_keeps_within_the_published_budget(
    capsys: pytest.CaptureFixture[str],
) -> None:
    zeros = {name: torch.zeros(shape) for name, shape in vgg.shapes().items()}
    big = cost(vgg.VGG16(zeros), clusters_of(512), 640, 480)
    small = cost(
        GhostDilated(ghost.initial_state(0)),
        clusters_of(ghost.CHANNELS),
        640,
        480,
    )
    print(f"FLOPs {small[0]:,} of {big[0]:,}, {small[1]:,} of {big[1]:,}")
    assert small[0] <= 0.015 * big[0]
    assert small[1] <= 0.20 * big[1]
