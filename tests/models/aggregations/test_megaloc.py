"""MegaLoc against its definition, written out in float64, and from both published files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from tests.models import networks
from tests.models.aggregations.contract import AggregationContract
from tests.models.synthetic import photographs, saved
from vladmap.models import load_model
from vladmap.models.aggregations.megaloc import MegaLoc
from vladmap.models.checkpoints.layouts import network, to_bytes
from vladmap.schemas.rejects import UserError
from vladmap.weights.entries import Entries
from vladmap.weights.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from vladmap.weights.reading import read_weights

CLUSTERS = 3


def head_state(channels: int, seed: int = 1) -> dict[str, Tensor]:
    """A MegaLoc of few numbers: 3 clusters of 5, a token of 4, a middle layer of 6; 7 in all."""
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (7, CLUSTERS * 5 + 4)}
    for name, outputs in (("cluster_features", 5), ("score", CLUSTERS)):
        shapes[f"agg.{name}.0.weight"], shapes[f"agg.{name}.0.bias"] = (6, channels, 1, 1), (6,)
        shapes[f"agg.{name}.3.weight"] = (outputs, 6, 1, 1)
        shapes[f"agg.{name}.3.bias"] = (outputs,)
    shapes["agg.token_features.0.weight"], shapes["agg.token_features.0.bias"] = (6, channels), (6,)
    shapes["agg.token_features.2.weight"], shapes["agg.token_features.2.bias"] = (4, 6), (4,)
    shapes["linear.bias"] = (7,)
    return networks.seeded(shapes, seed)


def by_definition(state: dict[str, Tensor], maps: Tensor, token: Tensor) -> Tensor:
    """Optimal transport by Sinkhorn's algorithm, on probabilities instead of their logarithms."""
    s = {name: tensor.double() for name, tensor in state.items()}

    def perceptron(x: Tensor, name: str, last: int) -> Tensor:
        for place in (0, last):
            weight, bias = s[f"agg.{name}.{place}.weight"], s[f"agg.{name}.{place}.bias"]
            x = weight.flatten(1) @ (x if place == 0 else x.clamp(min=0)) + bias[:, None]
        return x

    local = maps[0].flatten(1)
    count = local.shape[1]
    scores = perceptron(local, "score", 3)
    dustbin = torch.full((1, count), 0.37).double()  # it cancels out, whatever it is
    kernel = torch.cat([scores, dustbin]).exp()
    # A cluster holds as much as one location does, the dustbin what is left over.
    rows = torch.ones(CLUSTERS + 1).double() / (count + CLUSTERS)
    rows[-1] *= count - CLUSTERS
    columns = torch.ones(count).double() / (count + CLUSTERS)
    right = torch.ones(count).double()
    for _ in range(3):
        left = rows / (kernel @ right)
        right = columns / (kernel.T @ left)
    shares = (left[:, None] * kernel * right * (count + CLUSTERS))[:CLUSTERS]
    features = perceptron(local, "cluster_features", 3)
    whole = perceptron(token.T, "token_features", 2)[:, 0]
    parts = [whole / whole.norm()]
    sums = torch.stack([(features * share).sum(dim=1) for share in shares], dim=1)
    parts.append((sums / sums.norm(dim=0)).flatten())  # channel by channel, clusters fastest
    flat = torch.cat(parts)
    out = s["linear.weight"] @ (flat / flat.norm()) + s["linear.bias"]
    return out / out.norm()


class TestMegaLoc(AggregationContract):
    def layer(self) -> MegaLoc:
        return MegaLoc.from_tensors(Entries("a file", head_state(12)), 12, {})

    def by_definition(self, maps: Tensor, token: Tensor) -> Tensor:
        return by_definition(head_state(12), maps, token)


BACKBONE = networks.dinov2_state(width=64, blocks=2, side=4, seed=5)
HEAD = head_state(64)


def published(prefix: str = "backbone.") -> dict[str, Tensor]:
    state = {f"{prefix}{name}": tensor for name, tensor in BACKBONE.items()}
    state |= {f"aggregator.{name}": tensor for name, tensor in HEAD.items()}
    return state | {"aggregator.agg.dust_bin": torch.tensor(1.0)}


def reference(image: np.ndarray) -> np.ndarray:
    """What the original program makes of an image: resized after it was normalised."""
    x = networks.normalised(torch.from_numpy(image.copy()), IMAGENET_MEAN, IMAGENET_STD)
    size = [round(side / 14) * 14 for side in x.shape[2:]]
    x = functional.interpolate(x, size, mode="bilinear", antialias=True)
    return by_definition(HEAD, *networks.dinov2(x, BACKBONE)).numpy()


@pytest.mark.parametrize(
    # On the grid of the positions, off it, both sides rounded (91 = 6.5 cells: to the even 6).
    ("width", "height"),
    [(56, 56), (84, 56), (91, 77), (133, 60)],
)
def test_a_published_file_gives_the_descriptors_of_its_definition(width: int, height: int) -> None:
    model = load_model("megaloc", save(published()))
    image = photographs(1, width, height, seed=width)[0]
    found = model.describe([image])[0]
    assert model.spec.dimension == 7
    assert np.abs(found - reference(image)).max() < 1e-5


def test_half_a_cell_is_rounded_to_the_even_number_of_cells() -> None:
    assert math.isclose(91 / 14, 6.5)
    assert math.isclose(77 / 14, 5.5)
    view = MegaLoc.view(BACKBONE)
    assert view.resampling is not None
    assert view.resampling.target(91, 77) == (84, 84)


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_file_of_2025_and_what_data_parallel_training_leaves_are_the_same_model(
    wrapped: bool,
) -> None:
    old = published("backbone.model.") | {"backbone.model.mask_token": torch.zeros(1, 64)}
    content = saved(old)
    if wrapped:
        content = saved({"state_dict": {f"module.{name}": t for name, t in old.items()}})
    image = photographs(1, 91, 77)
    one, other = load_model("megaloc", save(published())), load_model("megaloc", content)
    assert one.spec == other.spec
    assert np.array_equal(one.describe(image), other.describe(image))


def test_images_of_several_sizes_are_described_as_each_alone() -> None:
    model = load_model("megaloc", save(published()))
    images = (
        photographs(2, 91, 77) + photographs(1, 84, 56, seed=4) + photographs(1, 91, 77, seed=5)
    )
    together = model.describe(images)
    for row, image in zip(together, images, strict=True):
        assert np.abs(row - model.describe([image])[0]).max() < 1e-6


def test_an_image_with_no_more_patches_than_clusters_is_refused() -> None:
    model = load_model("megaloc", save(published()))
    with pytest.raises(UserError, match="42 x 14 pixels has 3 patches, and MegaLoc needs more"):
        model.describe(photographs(1, 42, 14))
    # Callers that decode for the model never meet that: 9 x 9 cells are over the published 64.
    width, height = model.input_long_side(4000, 60)
    assert (width, height) == (448, 126)
    assert model.input_long_side(4000, 3000) == (448, 336)
    assert model.input_long_side(448, 336) == (448, 336)


def test_converted_it_is_the_same_model() -> None:
    content = save(published())
    converted = to_bytes(network(read_weights(content)), content)
    one, other = load_model("megaloc", content), load_model("megaloc", converted)
    image = photographs(1, 91, 77)
    assert one.spec == other.spec
    assert np.array_equal(one.describe(image), other.describe(image))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"aggregator.linear.weight": torch.ones(7, 18)}, r"shape \(7, 18\), expected \(D, 19\)"),
        ({"aggregator.linear.weight": None}, "lacks aggregator.linear.weight"),
        ({"backbone.blocks.1.mlp.fc2.bias": None}, "lacks backbone.blocks.1.mlp.fc2.bias"),
        ({"aggregator.agg.score.0.weight": torch.ones(6, 32, 1, 1)}, r"expected \(d, 64, 1, 1\)"),
        ({"backbone.cls_token": None}, "holds no backbone that is known"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(
    change: dict[str, Tensor | None], says: str
) -> None:
    state = {name: tensor for name, tensor in (published() | change).items() if tensor is not None}
    with pytest.raises(UserError, match=says) as refused:
        load_model("megaloc", save(state))
    assert "\n" not in str(refused.value)


def test_without_its_own_weights_it_says_what_it_needs() -> None:
    with pytest.raises(UserError, match=r"needs a checkpoint: MegaLoc's weights"):
        load_model("megaloc")
    with pytest.raises(UserError, match=r"holds dinov2 vit 64 alone: megaloc needs MegaLoc's"):
        load_model("megaloc", save(BACKBONE))
    with pytest.raises(UserError, match="ends in MegaLoc, supervlad needs SuperVLAD"):
        load_model("supervlad", save(published()))
