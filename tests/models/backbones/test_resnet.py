from __future__ import annotations

import pytest
import torch

from tests.models import networks
from vladmap.models.backbones import resnet
from vladmap.schemas.rejects import UserError

# conv2 to conv5 of Table 1 in He et al.
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def names_of(depth: int, layers: int) -> dict[str, torch.Tensor]:
    """Names alone, from which the variant is told."""
    convs = 2 if depth == 18 else 3
    return {
        f"layer{layer}.{block}.conv{conv}.weight": torch.zeros(0)
        for layer in range(1, layers + 1)
        for block in range(BLOCKS[depth][layer - 1])
        for conv in range(1, convs + 1)
    }


@pytest.mark.parametrize(
    ("depth", "layers", "channels"), [(18, 3, 256), (18, 4, 512), (50, 3, 1024), (50, 4, 2048)]
)
def test_a_resnet_is_its_published_layers(depth: int, layers: int, channels: int) -> None:
    state = networks.seeded(resnet.shapes(names_of(depth, layers)), seed=depth)
    network = resnet.ResNet(state).eval()
    x = torch.randn(1, 3, 48, 65, generator=torch.Generator().manual_seed(1))
    expected = networks.resnet(x, state, BLOCKS[depth][:layers])
    with torch.inference_mode():
        found = network(x)
    assert network.channels == channels == found.shape[1]
    assert found.shape[3] == -(-65 // network.stride)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("depth", [18, 50, 101])
def test_the_depth_is_read_off_the_weights(depth: int) -> None:
    assert resnet.depth(names_of(depth, 3)) == depth


def test_torchvision_counts_its_parameters_as_we_do() -> None:
    # 25,557,032 in torchvision's ResNet50, of which the classifier has 2,048 * 1,000 + 1,000.
    shapes = resnet.shapes(names_of(50, 4))
    trained = [shape for name, shape in shapes.items() if "running" not in name]
    assert sum(torch.Size(shape).numel() for shape in trained) == 25_557_032 - 2_049_000


def test_a_resnet_of_another_depth_is_refused() -> None:
    with pytest.raises(UserError, match="5 blocks in layer3"):
        resnet.depth({f"layer3.{i}.conv1.weight": torch.zeros(0) for i in range(5)})
