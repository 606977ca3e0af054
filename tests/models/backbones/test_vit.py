from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.models import networks
from vladmap.models.backbones import vit

WIDTH = 128


def state(side: int, registers: int = 0) -> dict[str, Tensor]:
    empty = {
        "cls_token": torch.zeros(1, 1, WIDTH),
        "pos_embed": torch.zeros(1, 1 + side * side, WIDTH),
        "blocks.0.norm1.weight": torch.zeros(0),
        "blocks.1.norm1.weight": torch.zeros(0),
    }
    if registers:
        empty["register_tokens"] = torch.zeros(1, registers, WIDTH)
    return networks.seeded(vit.shapes(empty), seed=3) | {"mask_token": torch.zeros(1, WIDTH)}


def layer_norm(x: Tensor, s: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + 1e-6) * s[f"{name}.weight"] + s[f"{name}.bias"]


def linear(x: Tensor, s: dict[str, Tensor], name: str) -> Tensor:
    return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def by_definition(x: Tensor, weights: dict[str, Tensor], positions: Tensor) -> Tensor:
    """Dosovitskiy et al.'s transformer with layer scale, heads and queries one by one."""
    s = {name: tensor.double() for name, tensor in weights.items()}
    cells = functional.conv2d(
        x.double(), s["patch_embed.proj.weight"], s["patch_embed.proj.bias"], stride=14
    )
    height, width = cells.shape[2:]
    tokens = torch.cat([s["cls_token"][0], cells[0].flatten(1).T]) + positions
    registers = s.get("register_tokens", torch.zeros(1, 0, WIDTH).double())[0]
    tokens = torch.cat([tokens[:1], registers, tokens[1:]])
    for i in range(2):
        block = f"blocks.{i}."
        q, k, v = linear(layer_norm(tokens, s, f"{block}norm1"), s, f"{block}attn.qkv").split(
            WIDTH, dim=1
        )
        mixed = torch.zeros_like(q)
        for head in range(WIDTH // 64):
            part = slice(64 * head, 64 * head + 64)
            for query in range(len(q)):
                scores = (k[:, part] @ q[query, part]) / 8
                mixed[query, part] = torch.softmax(scores, dim=0) @ v[:, part]
        tokens = tokens + linear(mixed, s, f"{block}attn.proj") * s[f"{block}ls1.gamma"]
        hidden = linear(layer_norm(tokens, s, f"{block}norm2"), s, f"{block}mlp.fc1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        tokens = tokens + linear(hidden, s, f"{block}mlp.fc2") * s[f"{block}ls2.gamma"]
    tokens = layer_norm(tokens, s, "norm")[1 + len(registers) :]
    return tokens.T.reshape(1, WIDTH, height, width)


@pytest.mark.parametrize("registers", [0, 4])
def test_the_transformer_is_its_definition_at_its_own_grid(registers: int) -> None:
    weights = state(3, registers)
    x = torch.randn(1, 3, 42, 42, generator=torch.Generator().manual_seed(0))
    expected = by_definition(x, weights, weights["pos_embed"][0].double())
    with torch.inference_mode():
        found = vit.ViT(weights).eval()(x)
    assert found.shape == (1, WIDTH, 3, 3)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_positions_are_brought_to_the_grid_of_the_image_as_dinov2_does() -> None:
    weights = state(5)
    grid = weights["pos_embed"][:, 1:].unflatten(1, (5, 5)).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, scale_factor=(2.1 / 5, 3.1 / 5), mode="bicubic")
    positions = torch.cat([weights["pos_embed"][0, :1], grid[0].flatten(1).T]).double()
    x = torch.randn(1, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    expected = by_definition(x, weights, positions)
    with torch.inference_mode():
        found = vit.ViT(weights).eval()(x)
    assert found.shape == (1, WIDTH, 2, 3)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_an_image_that_is_no_multiple_of_a_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 14"):
        vit.ViT(state(3))(torch.zeros(1, 3, 42, 40))
