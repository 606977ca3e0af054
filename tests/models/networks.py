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


def dinov2(x: Tensor, state: Mapping[str, Tensor], last_norm: bool = True) -> tuple[Tensor, Tensor]:
    """Dosovitskiy et al.'s transformer with layer scale: (1, D, h, w) patch, (1, D) class tokens.

    Positions are scaled as DINOv2 scales them; a head has 64 numbers.
    """
    s = {name: tensor.double() for name, tensor in state.items()}

    def norm(tokens: Tensor, name: str) -> Tensor:
        centred = tokens - tokens.mean(1, keepdim=True)
        deviation = torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-6)
        return centred / deviation * s[f"{name}.weight"] + s[f"{name}.bias"]

    def linear(tokens: Tensor, name: str) -> Tensor:
        return tokens @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    weight, bias = s["patch_embed.proj.weight"], s["patch_embed.proj.bias"]
    cells = functional.conv2d(x.double(), weight, bias, stride=14)
    (height, width), channels = cells.shape[2:], cells.shape[1]
    side = round((s["pos_embed"].shape[1] - 1) ** 0.5)
    grid = s["pos_embed"][0, 1:].T.reshape(1, channels, side, side)
    if (height, width) != (side, side):
        # In float32, as the network does: its sampling points are part of the definition.
        scale = ((height + 0.1) / side, (width + 0.1) / side)
        grid = functional.interpolate(grid.float(), scale_factor=scale, mode="bicubic").double()
    tokens = torch.cat([s["cls_token"][0], cells[0].flatten(1).T])
    tokens = tokens + torch.cat([s["pos_embed"][0, :1], grid[0].flatten(1).T])
    for block in sorted({name.split(".")[1] for name in s if name.startswith("blocks.")}, key=int):
        name = f"blocks.{block}."
        queries, keys, values = (
            part.unflatten(1, (-1, 64)).transpose(0, 1)
            for part in linear(norm(tokens, f"{name}norm1"), f"{name}attn.qkv").chunk(3, dim=1)
        )
        attention = torch.softmax(queries @ keys.transpose(1, 2) / 8, dim=2)
        mixed = (attention @ values).transpose(0, 1).flatten(1)
        tokens = tokens + linear(mixed, f"{name}attn.proj") * s[f"{name}ls1.gamma"]
        hidden = linear(norm(tokens, f"{name}norm2"), f"{name}mlp.fc1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        tokens = tokens + linear(hidden, f"{name}mlp.fc2") * s[f"{name}ls2.gamma"]
    if last_norm:
        tokens = norm(tokens, "norm")
    return tokens[1:].T.reshape(1, channels, height, width), tokens[:1]


def dinov2_state(width: int, blocks: int, side: int, seed: int = 0) -> dict[str, Tensor]:
    """Seeded weights of a small DINOv2 whose positions are a grid of `side` x `side`."""
    vector, state = (width,), {}
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + side * side, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": vector,
        "norm.weight": vector,
        "norm.bias": vector,
    }
    for block in range(blocks):
        name = f"blocks.{block}."
        for layer, outputs, inputs in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            shapes[f"{name}{layer}.weight"] = (outputs, inputs)
            shapes[f"{name}{layer}.bias"] = (outputs,)
        for one in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"{name}{one}"] = vector
        shapes[f"{name}ls1.gamma"] = shapes[f"{name}ls2.gamma"] = vector
    state = seeded(shapes, seed)
    for name, tensor in state.items():
        if "norm" in name and name.endswith("weight"):
            state[name] = 1 + tensor
    return state
