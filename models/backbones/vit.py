"""DINOv2's vision transformer, as a backbone of local descriptors.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision" (TMLR 2024), with its
parameter names. Depth and width are read off the weights; a head has 64 numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from vladmap.models.backbones.sampling import antialiased, bicubic, resampled, unchanged
from vladmap.models.backbones.view import WHOLE_MAP, View

STRIDE = 14
_HEAD = 64
_EPSILON = 1e-6
_OFFSET = 0.1  # what DINOv2 adds to a grid's side before it scales the position embedding


def shapes(state: Mapping[str, Tensor], last_norm: bool = True) -> dict[str, tuple[int, ...]]:
    """Shape of every weight that the network computes with, by DINOv2's names."""
    width = state["cls_token"].shape[-1]
    cells = state["pos_embed"].shape[1] if "pos_embed" in state else 1 + 37 * 37
    vector = (width,)
    by_name: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, cells, width),
        "patch_embed.proj.weight": (width, 3, STRIDE, STRIDE),
        "patch_embed.proj.bias": vector,
        **({"norm.weight": vector, "norm.bias": vector} if last_norm else {}),
    }
    if "register_tokens" in state:
        by_name["register_tokens"] = (1, state["register_tokens"].shape[1], width)
    for i in range(_depth(state)):
        block = f"blocks.{i}."
        for norm in ("norm1", "norm2"):
            by_name |= {f"{block}{norm}.weight": vector, f"{block}{norm}.bias": vector}
        by_name |= {f"{block}ls1.gamma": vector, f"{block}ls2.gamma": vector}
        for layer, outputs, inputs in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            by_name[f"{block}{layer}.weight"] = (outputs, inputs)
            by_name[f"{block}{layer}.bias"] = (outputs,)
    return by_name


def _depth(state: Mapping[str, Tensor]) -> int:
    return 1 + max((int(n.split(".")[1]) for n in state if n.startswith("blocks.")), default=-1)


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.qkv(x).unflatten(2, (3, -1, _HEAD)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attn = _Attention(width)
        self.ls1 = _Scale(width)
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = _Mlp(width)
        self.ls2 = _Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _PatchEmbed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, STRIDE, STRIDE)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class ViT(nn.Module):
    """(N, 3, H, W), sides multiples of 14 -> patch tokens (N, `channels`, H / 14, W / 14).

    Tokens are taken after the last normalisation, or before it where `view` says so. Register
    tokens, where the weights have them, are used inside and not returned. The class token (N,
    `channels`) is returned after the patch tokens where `view` includes it.
    """

    stride = STRIDE

    def __init__(self, state: Mapping[str, Tensor], view: View = WHOLE_MAP) -> None:
        """`state` holds the names of `shapes`; raises KeyError or RuntimeError if not."""
        super().__init__()
        self._class_token = view.class_token
        self.channels: int = state["cls_token"].shape[-1]
        self.cls_token = nn.Parameter(torch.zeros_like(state["cls_token"]))
        self.pos_embed = nn.Parameter(torch.zeros_like(state["pos_embed"]))
        registers = state.get("register_tokens")
        self.register_tokens = (
            None if registers is None else nn.Parameter(torch.zeros_like(registers))
        )
        self.patch_embed = _PatchEmbed(self.channels)
        self.blocks = nn.Sequential(*(_Block(self.channels) for _ in range(_depth(state))))
        self.norm = nn.LayerNorm(self.channels, eps=_EPSILON) if view.last_norm else nn.Identity()
        self.load_state_dict({name: state[name] for name in shapes(state, view.last_norm)})

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if x.shape[2] % STRIDE or x.shape[3] % STRIDE:
            raise ValueError(f"sides of {tuple(x.shape[2:])} are no multiples of {STRIDE}")
        cells = self.patch_embed(x)
        height, width = cells.shape[2:]
        tokens = torch.cat(
            [self.cls_token.expand(x.shape[0], -1, -1), cells.flatten(2).transpose(1, 2)], dim=1
        )
        tokens = tokens + self._positions(height, width).to(tokens.dtype)
        others = 1
        if self.register_tokens is not None:
            registers = self.register_tokens.expand(x.shape[0], -1, -1)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
            others += registers.shape[1]
        tokens = self.norm(self.blocks(tokens))
        maps = tokens[:, others:].transpose(1, 2).unflatten(2, (height, width))
        return (maps, tokens[:, 0]) if self._class_token else maps

    def stages(self) -> list[nn.Module]:
        """Embedding, blocks and last normalisation, in the order that tokens go through them."""
        return [self.patch_embed, *self.blocks, self.norm]

    def unfolded(self) -> dict[str, Tensor]:
        """A state dict from which this network can be built again."""
        state = self.state_dict()
        return {name: tensor.cpu().contiguous().clone() for name, tensor in state.items()}

    def _positions(self, height: int, width: int) -> Tensor:
        """The position embedding at the input's grid, in float32: (1, 1 + height * width, D)."""
        embedding = self.pos_embed.float()
        side = math.isqrt(embedding.shape[1] - 1)
        grid = embedding[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        if torch.compiler.is_exporting():
            grid = resampled(grid, *self._matrices(side, height, width))
            return torch.cat([embedding[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
        if (height, width) == (side, side):
            return embedding
        if self.register_tokens is None:
            # The scale, not the size: it decides where between the old cells the new ones lie.
            scale = ((height + _OFFSET) / side, (width + _OFFSET) / side)
            grid = functional.interpolate(grid, scale_factor=scale, mode="bicubic")
        else:
            grid = functional.interpolate(
                grid, size=(height, width), mode="bicubic", antialias=True
            )
        return torch.cat([embedding[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    def _matrices(self, side: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """What `_positions` resamples by, (height, side) and (width, side), without a branch."""
        sizes = [torch.scalar_tensor(size, dtype=torch.float64) for size in (height, width)]
        if self.register_tokens is None:
            rows = bicubic(side, height, (sizes[0] + _OFFSET) / side)
            columns = bicubic(side, width, (sizes[1] + _OFFSET) / side)
        else:
            rows, columns = (antialiased(side, size, "bicubic") for size in (height, width))
        # A grid of the embedding's own size is taken as it is.
        same = (sizes[0] == side) & (sizes[1] == side)
        return (
            torch.where(same, unchanged(side, height), rows),
            torch.where(same, unchanged(side, width), columns),
        )
