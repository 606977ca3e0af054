"""VGG16 up to conv5_3 before its ReLU, the backbone of the published NetVLAD.

Simonyan & Zisserman, "Very Deep Convolutional Networks" (ICLR 2015); layers are numbered as in
torchvision's `vgg16().features`, so that its state dicts load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from torch import Tensor, nn

from vladmap.schemas.rejects import UserError

_CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)  # 0: pool


def _layers() -> list[nn.Module]:
    layers: list[nn.Module] = []
    inputs = 3
    for channels in _CHANNELS:
        if channels == 0:
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = channels
    return layers[:-1]


@cache
def shapes() -> dict[str, tuple[int, ...]]:
    """Shape of every weight and bias that the network computes with, by torchvision's numbers."""
    return {
        name: tuple(tensor.shape) for name, tensor in nn.Sequential(*_layers()).state_dict().items()
    }


class VGG16(nn.Module):
    """(N, 3, H, W) -> (N, 512, H // 16, W // 16)."""

    channels = 512
    stride = 16

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """`state` holds `N.weight` and `N.bias` of the thirteen convolutions."""
        super().__init__()
        self.features = nn.Sequential(*_layers())
        self.features.load_state_dict(dict(state))

    def forward(self, x: Tensor) -> Tensor:
        """Raises UserError for images with a side below 16 pixels: pooling leaves nothing of it."""
        height, width = x.shape[2:]
        if min(height, width) < self.stride:
            raise UserError(
                f"an image of {width} x {height} pixels is too small for VGG16: enlarge it to "
                f"{self.stride} pixels a side or more"
            )
        return self.features(x)

    def stages(self) -> list[nn.Module]:
        """The convolutions, in the order in which an image goes through them."""
        return [layer for layer in self.features if isinstance(layer, nn.Conv2d)]

    def through(self, x: Tensor, first: int = 0, end: int | None = None) -> Tensor:
        """The output of the stages `first` to `end`; all stages together are the network."""
        places = [n for n, layer in enumerate(self.features) if isinstance(layer, nn.Conv2d)]
        bounds = [*places, len(self.features)]
        last = len(places) if end is None else end
        return self.features[bounds[first] : bounds[last]](x)

    def unfolded(self) -> dict[str, Tensor]:
        """A state dict from which this network can be built again."""
        state = self.features.state_dict()
        return {name: tensor.cpu().contiguous().clone() for name, tensor in state.items()}
