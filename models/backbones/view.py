"""What an aggregation needs of a backbone: how inputs are resized, and which tokens are output."""

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
