"""How an aggregation looks through a backbone: what it resizes, and which tokens it takes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


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
        size = self.target(*images.shape[2:])
        if size == tuple(images.shape[2:]):
            return images
        return functional.interpolate(images, size, mode=self.mode, antialias=True)

    def _nearest(self, length: int) -> int:
        return max(1, round(length / self.multiple)) * self.multiple


@dataclass(frozen=True)
class View:
    """What an aggregation wants of a backbone beside its feature map.

    `class_token`: a transformer's class token, too, as (N, D) after the map. `last_norm`: the
    tokens after the transformer's last layer normalisation, not before it. `resampling` resizes
    the normalised images in float32 before the network sees them. The default is the feature map
    of images as they are.
    """

    class_token: bool = False
    last_norm: bool = True
    resampling: Resampling | None = None

    def named(self, name: str) -> str:
        """The name of a backbone that is looked at so: descriptors depend on it."""
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
