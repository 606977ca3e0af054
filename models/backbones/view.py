"""What an aggregation needs of a backbone: how inputs are resized, and which tokens are output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vladmap.models.backbones.sampling import antialiased, resampled


@dataclass(frozen=True)
class Resampling:
    """Resizes images as floating-point numbers, as some published models do themselves.

    `mode` is that of `torch.nn.functional.interpolate`, antialiased. Either both sides become
    `side` pixels whatever the aspect ratio, or each becomes the nearest multiple of `multiple`, of
    two equally near ones the even multiple. Values beyond those of the input are kept.
    """

    mode: str
    side: int = 0
    multiple: int = 1

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels after resizing."""
        if self.side:
            return self.side, self.side
        return self._nearest(height), self._nearest(width)

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, *target(H, W)); the images themselves where that is their size."""
        height, width = images.shape[2:]
        if torch.compiler.is_exporting():
            rows, columns = (
                antialiased(length, self.unbranched(length), self.mode)
                for length in (height, width)
            )
            return resampled(images, rows, columns)
        size = self.target(height, width)
        if size == tuple(images.shape[2:]):
            return images
        return functional.interpolate(images, size, mode=self.mode, antialias=True)

    def unbranched(self, length: int) -> int:
        """`target` of one side without a branch, for a graph that is made for all sizes."""
        if self.side:
            return self.side
        nearest = (length + self.multiple // 2) // self.multiple
        if self.multiple % 2 == 0:
            # Half-way between two multiples the even one is taken, as `round` does.
            twice = 2 * self.multiple
            beyond_odd = (length - self.multiple // 2) % twice
            nearest = nearest - 1 + (beyond_odd + twice - 1) // twice
        return nearest * self.multiple

    def _nearest(self, length: int) -> int:
        return max(1, round(length / self.multiple)) * self.multiple


@dataclass(frozen=True)
class View:
    """What an aggregation needs of a backbone in addition to its feature map.

    `class_token`: output a transformer's class token (N, D) after the map. `last_norm`: output
    tokens after the transformer's last layer normalisation, otherwise before it. `resampling`
    resizes the normalised images in float32 before they enter the network. The default is the
    feature map alone, of images that are not resized.
    """

    class_token: bool = False
    last_norm: bool = True
    resampling: Resampling | None = None

    def named(self, name: str) -> str:
        """The name of a backbone with this view added: descriptors depend on both."""
        parts = [name]
        if self.class_token:
            parts.append("class token")
        if not self.last_norm:
            parts.append("no last norm")
        if self.resampling is not None:
            rule = self.resampling
            size = f"{rule.side} x {rule.side}" if rule.side else f"multiples of {rule.multiple}"
            parts.append(f"{rule.mode} to {size}")
        return ", ".join(parts)


WHOLE_MAP = View()
"""The feature map of images as they are, and nothing else."""
