"""VGG16 up to conv5_3 before its ReLU, the backbone of the published NetVLAD.

Simonyan & Zisserman, "Very Deep Convolutional Networks" (ICLR 2015); layers are numbered as in
torchvision's `vgg16().features`, so that its state dicts load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

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
        return self.features(x)
