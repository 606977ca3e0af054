"""CosPlace and EigenPlaces against their definition in float64, from files as they published."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from tests.models import networks
from tests.models.aggregations.contract import AggregationContract
from tests.models.backbones.test_resnet import BLOCKS, names_of
from tests.models.synthetic import photographs, saved, vgg16_state
from vladmap.models import load_model
from vladmap.models.aggregations.cosplace import CosPlace
from vladmap.models.backbones import resnet
from vladmap.models.checkpoints.layouts import network, to_bytes
from vladmap.models.training.trainable import trainable
from vladmap.schemas.rejects import UserError
from vladmap.weights.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from vladmap.weights.reading import read_weights

POWER = 2.7


def linear(channels: int, dimension: int) -> tuple[Tensor, Tensor]:
    state = networks.seeded({"weight": (dimension, channels), "bias": (dimension,)}, seed=6)
    return state["weight"], state["bias"]


def by_definition(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    local = maps[0].flatten(1).double()
    local = local / local.norm(dim=0)
    pooled = (local.clamp(min=1e-6) ** POWER).mean(dim=1) ** (1 / POWER)
    out = weight.double() @ pooled + bias.double()
    return out / out.norm()


class TestCosPlace(AggregationContract):
    def layer(self) -> CosPlace:
        return CosPlace(POWER, *linear(12, 7))

    def by_definition(self, maps: Tensor, token: Tensor) -> Tensor:
        return by_definition(maps, *linear(12, 7))


def published(backbone: dict[str, Tensor], channels: int, dimension: int) -> dict[str, Tensor]:
    weight, bias = linear(channels, dimension)
    state = {f"backbone.{name}": tensor for name, tensor in backbone.items()}
    state["aggregation.1.p"] = torch.tensor([POWER])
    return state | {"aggregation.3.weight": weight, "aggregation.3.bias": bias}


def of_resnet(depth: int, dimension: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network by torchvision's names, and the file with the numbers of its children."""
    state = networks.seeded(resnet.shapes(names_of(depth, 4)), seed=depth)
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    renamed = {}
    for name, tensor in state.items():
        child, _, rest = name.partition(".")
        renamed[f"{numbers[child]}.{rest}"] = tensor
    renamed["1.num_batches_tracked"] = torch.tensor(7)
    return state, published(renamed, 512 if depth == 18 else 2048, dimension)


# Beyond any bound of ours; no side a multiple of the stride; small.
SIZES = ((700, 90), (83, 61), (40, 40))


@pytest.mark.parametrize("name", ["cosplace", "eigenplaces"])
@pytest.mark.parametrize(
    ("depth", "dimension"), [(18, 32), pytest.param(50, 128, marks=pytest.mark.medium)]
)
def test_a_resnets_file_gives_the_descriptors_of_its_definition(
    name: str, depth: int, dimension: int
) -> None:
    state, file = of_resnet(depth, dimension)
    model = load_model(name, saved(file))
    assert model.spec.dimension == dimension
    for width, height in SIZES if depth == 18 else SIZES[1:]:
        image = photographs(1, width, height, seed=width)[0]
        x = networks.normalised(torch.from_numpy(image.copy()), IMAGENET_MEAN, IMAGENET_STD)
        expected = by_definition(
            networks.resnet(x, state, BLOCKS[depth]),
            file["aggregation.3.weight"],
            file["aggregation.3.bias"],
        )
        assert np.abs(model.describe([image])[0] - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize("wrapped", [False, True])
def test_vgg16s_file_gives_the_descriptors_of_its_definition(wrapped: bool) -> None:
    state = vgg16_state()
    file = published(state, 512, 64)
    content = save(file)
    if wrapped:
        content = saved({"model_state_dict": {f"module.{n}": t for n, t in file.items()}})
    image = photographs(1, 83, 61)[0]
    x = networks.normalised(torch.from_numpy(image.copy()), IMAGENET_MEAN, IMAGENET_STD)
    weight, bias = file["aggregation.3.weight"], file["aggregation.3.bias"]
    expected = by_definition(networks.vgg16(x, state), weight, bias)
    found = load_model("cosplace", content).describe([image])[0]
    assert np.abs(found - expected.numpy()).max() < 1e-5


def test_photographs_are_decoded_at_640_pixels_and_taken_at_any_size() -> None:
    model = load_model("cosplace", save(published(vgg16_state(), 512, 64)))
    assert model.input_long_side(4000, 3000) == (640, 480)
    assert model.input_long_side(500, 300) == (500, 300)
    assert model.spec.input_size.resized(4000, 3000) == (4000, 3000)


@pytest.mark.parametrize(("width", "height"), [(15, 40), (40, 15)])
def test_an_image_of_which_vgg16_leaves_nothing_is_refused_in_one_line(
    width: int, height: int
) -> None:
    model = load_model("cosplace", save(published(vgg16_state(), 512, 64)))
    with pytest.raises(UserError, match=f"{width} x {height} pixels is too small") as refused:
        model.describe(photographs(1, width, height))
    assert "\n" not in str(refused.value)
    assert model.describe(photographs(1, 16, 16)).shape == (1, 64)


def test_a_file_has_the_same_descriptors_under_either_name_and_another_fingerprint() -> None:
    """CosPlace's and EigenPlaces' files have the same names and shapes: the user's word counts."""
    content = save(published(vgg16_state(), 512, 64))
    one, other = load_model("cosplace", content), load_model("eigenplaces", content)
    image = photographs(1, 83, 61)
    assert np.array_equal(one.describe(image), other.describe(image))
    assert one.spec.fingerprint != other.spec.fingerprint


def test_converted_it_is_the_same_model() -> None:
    content = save(published(vgg16_state(), 512, 64))
    converted = to_bytes(network(read_weights(content)), content)
    one, other = load_model("eigenplaces", content), load_model("eigenplaces", converted)
    image = photographs(1, 83, 61)
    assert one.spec == other.spec
    assert np.array_equal(one.describe(image), other.describe(image))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"aggregation.3.weight": torch.ones(64, 500)}, r"expected \(d, 512\)"),
        ({"aggregation.3.bias": None}, "lacks aggregation.3.bias"),
        ({"aggregation.3.bias": torch.ones(32)}, r"aggregation.3.bias has shape \(32,\)"),
        ({"aggregation.1.p": torch.ones(3)}, "expected a single number"),
        ({"backbone.28.bias": None}, "lacks backbone.28.bias"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(
    change: dict[str, Tensor | None], says: str
) -> None:
    state = published(vgg16_state(), 512, 64) | change
    with pytest.raises(UserError, match=says) as refused:
        load_model("cosplace", save({n: t for n, t in state.items() if t is not None}))
    assert "\n" not in str(refused.value)


def test_gem_does_not_take_the_file_without_its_linear_layer() -> None:
    with pytest.raises(UserError, match="ends in CosPlace, gem needs GeM"):
        load_model("gem", save(published(vgg16_state(), 512, 64)))


def test_it_is_not_trained_on() -> None:
    net = network(read_weights(save(published(vgg16_state(), 512, 64))))
    with pytest.raises(UserError, match="ends in CosPlace is not trained here: start from one of"):
        trainable(net)
