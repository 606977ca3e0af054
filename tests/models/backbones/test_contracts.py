"""Each backbone keeps what every backbone must keep."""

from __future__ import annotations

from torch import Tensor

from tests.models import networks
from tests.models.backbones.contract import BackboneContract
from tests.models.backbones.test_resnet import names_of
from tests.models.synthetic import lite0_state, vgg16_state
from vladmap.models.backbones import ghost, resnet


class TestVGG16(BackboneContract):
    name, channels, stride = "vgg16 conv5_3", 512, 16

    def state(self) -> dict[str, Tensor]:
        return vgg16_state()


class TestEfficientNetLite0(BackboneContract):
    name, channels, stride = "efficientnet-lite0 block 11", 112, 16

    def state(self) -> dict[str, Tensor]:
        return lite0_state()


class TestResNet18UpToLayer3(BackboneContract):
    name, channels, stride = "resnet18 layer3", 256, 16

    def state(self) -> dict[str, Tensor]:
        return networks.seeded(resnet.shapes(names_of(18, 3)))


class TestResNet50UpToLayer4(BackboneContract):
    name, channels, stride = "resnet50 layer4", 2048, 32

    def state(self) -> dict[str, Tensor]:
        return networks.seeded(resnet.shapes(names_of(50, 4)))


class TestGhostDilated(BackboneContract):
    name, channels, stride = "ghost-dilated", 512, 16

    def state(self) -> dict[str, Tensor]:
        return ghost.initial_state(0)


class TestDINOv2(BackboneContract):
    name, channels, stride = "dinov2 vit 64", 64, 14
    pixels = (56, 84)
    class_token = True

    def state(self) -> dict[str, Tensor]:
        return networks.dinov2_state(width=64, blocks=2, side=4)
