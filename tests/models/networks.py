"""Networks written out layer by layer in float64, as their papers define them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

NORM = ("weight", "bias", "running_mean", "running_var")


def norm_state(name: str, channels: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A batch normalisation that is none of the trivial ones."""
    return {
        f"{name}.weight": 0.8 + 0.4 * torch.rand(channels, generator=generator),
        f"{name}.bias": 0.2 * torch.randn(channels, generator=generator),
        f"{name}.running_mean": 0.2 * torch.randn(channels, generator=generator),
        f"{name}.running_var": 0.5 + torch.rand(channels, generator=generator),
    }


def seeded(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Weights of the given shapes by seed, scaled so that activations keep their size."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name.endswith(".running_mean"):
            state |= norm_state(name.removesuffix(".running_mean"), shape[0], generator)
        elif len(shape) > 1:
            fan_in = int(torch.tensor(shape[1:]).prod())
            state[name] = (2 / fan_in) ** 0.5 * torch.randn(shape, generator=generator)
        elif name not in state:
            state[name] = 0.1 * torch.randn(shape, generator=generator)
    return state


def conv_norm(
    x: Tensor, state: Mapping[str, Tensor], conv: str, norm: str, **options: int
) -> Tensor:
    x = functional.conv2d(x, state[f"{conv}.weight"].double(), **options)  # type: ignore[arg-type]
    weight, bias, mean, var = (state[f"{norm}.{part}"].double() for part in NORM)
    return (x - mean[:, None, None]) / torch.sqrt(var + 1e-5)[:, None, None] * weight[
        :, None, None
    ] + bias[:, None, None]


def resnet(x: Tensor, state: Mapping[str, Tensor], blocks: tuple[int, ...]) -> Tensor:
    """Deep residual learning's Table 1, the stride in a bottleneck's 3x3 convolution."""
    x = conv_norm(x.double(), state, "conv1", "bn1", stride=2, padding=3).relu()
    x = functional.max_pool2d(x, 3, 2, padding=1)
    for layer, count in enumerate(blocks, start=1):
        for block in range(count):
            name = f"layer{layer}.{block}"
            stride = 2 if block == 0 and layer > 1 else 1
            if f"{name}.conv3.weight" in state:
                y = conv_norm(x, state, f"{name}.conv1", f"{name}.bn1").relu()
                y = conv_norm(y, state, f"{name}.conv2", f"{name}.bn2", stride=stride, padding=1)
                y = conv_norm(y.relu(), state, f"{name}.conv3", f"{name}.bn3")
            else:
                y = conv_norm(x, state, f"{name}.conv1", f"{name}.bn1", stride=stride, padding=1)
                y = conv_norm(y.relu(), state, f"{name}.conv2", f"{name}.bn2", padding=1)
            if f"{name}.downsample.0.weight" in state:
                first, second = f"{name}.downsample.0", f"{name}.downsample.1"
                x = conv_norm(x, state, first, second, stride=stride)
            x = (x + y).relu()
    return x


def normalised(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float64."""
    pixels = image.permute(2, 0, 1)[None].double() / 255
    return (pixels - torch.tensor(mean).double()[:, None, None]) / torch.tensor(std).double()[
        :, None, None
    ]


def vgg16(x: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """Simonyan & Zisserman's configuration D up to conv5_3, before its ReLU."""
    x = x.double()
    convolutions = sorted(int(name.partition(".")[0]) for name in state if name.endswith(".weight"))
    for place, number in enumerate(convolutions):
        if place:
            x = x.relu()
        if place in (2, 4, 7, 10):
            x = functional.max_pool2d(x, 2)
        weight, bias = state[f"{number}.weight"].double(), state[f"{number}.bias"].double()
        x = functional.conv2d(x, weight, bias, padding=1)
    return x


def netvlad(
    features: Tensor, assignment: Tensor, centres: Tensor, bias: Tensor | None = None
) -> Tensor:
    """(1, D, H, W) -> (K, D): intra-normalised sums of residuals, cluster by cluster."""
    local = features[0].flatten(1).double()
    local = local / local.norm(dim=0)
    scores = assignment.double() @ local
    if bias is not None:
        scores = scores + bias.double()[:, None]
    shares = scores.exp() / scores.exp().sum(dim=0)
    rows = []
    for share, centre in zip(shares, centres.double(), strict=True):
        residual = (share * (local - centre[:, None])).sum(dim=1)
        rows.append(residual / residual.norm())
    return torch.stack(rows)
