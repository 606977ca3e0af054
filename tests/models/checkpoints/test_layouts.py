"""Every layout of weights that people hold gives the descriptors that its own program gives."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy.io import savemat
from torch import Tensor
from torch.nn import functional

from tests.models import networks
from tests.models.backbones.test_resnet import BLOCKS, names_of
from tests.models.synthetic import photographs, pytorch_netvlad_state, saved, vgg16_state
from vladmap.models import load_model
from vladmap.models.backbones import resnet, vit
from vladmap.models.base import DescriptorModel
from vladmap.models.checkpoints import layouts as formats
from vladmap.schemas.rejects import UserError
from vladmap.weights.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from vladmap.weights.reading import read_weights

pytestmark = pytest.mark.medium

CLUSTERS = 3


def head(channels: int, seed: int = 2) -> tuple[Tensor, Tensor]:
    """Assignment and centres, (K, D) both."""
    generator = torch.Generator().manual_seed(seed)
    shape = (CLUSTERS, channels)
    return 3 * torch.randn(shape, generator=generator), 0.05 * torch.randn(
        shape, generator=generator
    )


def image(width: int = 80, height: int = 64) -> Tensor:
    return torch.from_numpy(photographs(1, width, height)[0].copy())


def agrees(model: DescriptorModel, picture: Tensor, expected: Tensor) -> None:
    found = model.describe([picture.numpy()])[0]
    expected = expected.flatten() / expected.norm()
    assert model.spec.dimension == len(expected)
    assert np.abs(found - expected.numpy()).max() < 1e-5


def pca(inputs: int, outputs: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(outputs, inputs, generator=generator), torch.randn(
        outputs, generator=generator
    )


def matconvnet(with_pca: bool) -> bytes:
    """As MATLAB exports it: layers in a cell, centres negated, kernels H x W x in x out."""
    vgg, (assignment, centres) = vgg16_state(), head(512)
    layers: list[dict[str, Any]] = []
    for number in range(30):
        if f"{number}.weight" in vgg:
            kernel = vgg[f"{number}.weight"].permute(2, 3, 1, 0).numpy()
            bias = vgg[f"{number}.bias"].numpy()[None]
            layers.append({"type": "conv", "weights": cell(kernel, bias)})
        else:
            layers.append({"type": "relu"})
    layers.append({"type": "vlad", "weights": cell(assignment.T.numpy(), -centres.T.numpy())})
    layers += [{"type": "normalize"}, {"type": "normalize"}]
    if with_pca:
        weight, bias_ = pca(CLUSTERS * 512)
        kernel = weight.T[None, None].numpy()
        layers.append({"type": "conv", "weights": cell(kernel, bias_.numpy()[None])})
    average = np.broadcast_to(np.float32([123.0, 117.0, 104.0]), (4, 4, 3))
    net = {"layers": cell(*layers), "meta": {"normalization": {"averageImage": average}}}
    buffer = io.BytesIO()
    savemat(buffer, {"net": net})
    return buffer.getvalue()


def cell(*items: Any) -> np.ndarray:
    array = np.empty((1, len(items)), object)
    for i, item in enumerate(items):
        array[0, i] = item
    return array


@pytest.mark.parametrize("with_pca", [False, True])
def test_hlocs_matconvnet_file(with_pca: bool) -> None:
    picture = image()
    x = picture.permute(2, 0, 1)[None].double() - torch.tensor([123.0, 117.0, 104.0])[:, None, None]
    assignment, centres = head(512)
    by_cluster = networks.netvlad(networks.vgg16(x, vgg16_state()), assignment, centres)
    flat = by_cluster.T.flatten() / by_cluster.norm()  # MATLAB's program: clusters fastest
    expected = by_cluster
    if with_pca:
        weight, bias = pca(CLUSTERS * 512)
        expected = weight.double() @ flat + bias
    model = load_model("netvlad", matconvnet(with_pca))
    agrees(model, picture, expected)
    assert model.input_long_side(4000, 3000) == (1024, 768)


@pytest.mark.parametrize("nested", ["base_model.base.", "base_model."])
def test_openibls_file(nested: str) -> None:
    picture, (assignment, centres) = image(), head(512)
    weight, bias = pca(CLUSTERS * 512)
    state = {f"{nested}{name}": tensor for name, tensor in vgg16_state().items()}
    state |= {
        "net_vlad.conv.weight": assignment[:, :, None, None],
        "net_vlad.centroids": centres,
        "pca_layer.weight": weight[:, :, None, None],
        "pca_layer.bias": bias,
    }
    mean = (0.48501960784313836, 0.4579568627450961, 0.4076039215686255)
    x = networks.normalised(picture, mean, (1 / 255,) * 3)
    rows = networks.netvlad(networks.vgg16(x, vgg16_state()), assignment, centres)
    expected = weight.double() @ (rows.flatten() / rows.norm()) + bias
    agrees(load_model("netvlad", saved(state)), picture, expected)


def benchmark_names(depth: int, layers: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A ResNet's state by torchvision's names and by the benchmark's numbers of its children."""
    state = networks.seeded(resnet.shapes(names_of(depth, layers)), seed=1)
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    renamed = {}
    for name, tensor in state.items():
        child, _, rest = name.partition(".")
        renamed[f"module.backbone.{numbers[child]}.{rest}"] = tensor
    return state, renamed


@pytest.mark.parametrize(("depth", "layers"), [(18, 3), (50, 3), (18, 4)])
def test_the_geo_localization_benchmarks_resnet_netvlad(depth: int, layers: int) -> None:
    state, renamed = benchmark_names(depth, layers)
    picture = image()
    x = networks.normalised(picture, IMAGENET_MEAN, IMAGENET_STD)
    features = networks.resnet(x, state, BLOCKS[depth][:layers])
    assignment, centres = head(features.shape[1])
    renamed |= {
        "module.aggregation.conv.weight": assignment[:, :, None, None],
        "module.aggregation.centroids": centres,
    }
    model = load_model("netvlad", saved({"model_state_dict": renamed, "epoch_num": 3}))
    agrees(model, picture, networks.netvlad(features, assignment, centres))


def test_the_geo_localization_benchmarks_vgg16() -> None:
    picture, (assignment, centres) = image(), head(512)
    state = {f"backbone.{name}": tensor for name, tensor in vgg16_state().items()}
    state |= {
        "aggregation.conv.weight": assignment[:, :, None, None],
        "aggregation.centroids": centres,
    }
    x = networks.normalised(picture, IMAGENET_MEAN, IMAGENET_STD)
    features = networks.vgg16(x, vgg16_state())
    agrees(
        load_model("netvlad", saved(state)),
        picture,
        networks.netvlad(features, assignment, centres),
    )


@pytest.mark.parametrize("key", ["aggregation.1.p", "aggregation.0.p", "aggregation.0.1.p"])
def test_the_geo_localization_benchmarks_gem(key: str) -> None:
    picture = image()
    state = {f"backbone.{name}": tensor for name, tensor in vgg16_state().items()}
    state[key] = torch.tensor([2.5])
    local = networks.vgg16(networks.normalised(picture, IMAGENET_MEAN, IMAGENET_STD), vgg16_state())
    if key.endswith("1.p"):
        local = functional.normalize(local, dim=1)
    expected = local.clamp(min=1e-6).pow(2.5).mean((2, 3)).pow(1 / 2.5)[0]
    if key.count(".") == 3:  # a fully connected layer follows
        weight, bias = pca(512)
        state |= {"aggregation.1.weight": weight, "aggregation.1.bias": bias}
        expected = weight.double() @ expected + bias
    agrees(load_model("gem", saved(state)), picture, expected)


@pytest.mark.parametrize(("clusters", "ghosts"), [(4, 1), (1, 2)])
def test_supervlads_file(clusters: int, ghosts: int) -> None:
    width = 64
    names = {
        "cls_token": torch.zeros(1, 1, width),
        "blocks.1.norm1.weight": torch.zeros(0),
        "pos_embed": torch.zeros(1, 1 + 23 * 23, width),
    }
    weights = networks.seeded(vit.shapes(names), seed=2)
    generator = torch.Generator().manual_seed(3)
    assignment = 3 * torch.randn(clusters + ghosts, width, 1, 1, generator=generator)
    state = {f"module.backbone.{name}": tensor for name, tensor in weights.items()}
    state["module.aggregation.conv.weight"] = assignment
    picture = image(322, 322)
    x = networks.normalised(picture, IMAGENET_MEAN, IMAGENET_STD)
    network = vit.ViT(weights).double()
    with torch.inference_mode():
        local = functional.normalize(network(x)[0].flatten(1), dim=0)
    shares = torch.softmax(assignment.flatten(1).double() @ local, dim=0)[:clusters]
    rows = functional.normalize(shares @ local.T, dim=1)
    model = load_model("supervlad", saved({"model_state_dict": state}))
    agrees(model, picture, rows)
    assert model.input_long_side(4000, 1000) == (322, 322)


def test_supervlads_cross_image_encoder_is_refused() -> None:
    state = {
        "backbone.cls_token": torch.zeros(1, 1, 64),
        "aggregation.conv.weight": torch.ones(5, 64, 1, 1),
        "encoder.layers.0.linear1.weight": torch.ones(2, 2),
    }
    with pytest.raises(UserError, match="depend on the other images of its batch"):
        load_model("supervlad", saved(state))


def test_a_resnet_from_torchvision_is_a_backbone_up_to_layer3() -> None:
    state = networks.seeded(resnet.shapes(names_of(18, 4))) | {"fc.weight": torch.ones(1000, 512)}
    found = formats.network(read_weights(saved(state)))
    assert found.backbone.name == "resnet18 layer3"
    assert found.aggregation is None


def held(layout: str) -> tuple[str, bytes]:
    """A model's name and a checkpoint for it."""
    if layout == "hloc":
        return "netvlad", matconvnet(True)
    if layout == "Patch-NetVLAD":
        state = pytorch_netvlad_state(CLUSTERS, bias=True)
        weight, bias = pca(CLUSTERS * 512)
        state |= {"WPCA.0.weight": weight[:, :, None, None].double(), "WPCA.0.bias": bias.double()}
        return "patch-netvlad", saved({"num_pcs": 5, "state_dict": state})
    if layout == "gem":
        layers = {f"backbone.{n}": t for n, t in vgg16_state().items()}
        return "gem", saved(layers | {"aggregation.1.p": torch.tensor([2.0])})
    return "gem", saved({f"features.{n}": t for n, t in vgg16_state().items()})


@pytest.mark.parametrize("layout", ["Patch-NetVLAD", "hloc", "gem", "backbone"])
def test_our_own_format_keeps_the_descriptors_and_says_where_it_is_from(
    layout: str, tmp_path: Any
) -> None:
    name, content = held(layout)
    converted = formats.to_bytes(formats.network(read_weights(content)), content)
    one, other = (load_model(name, data) for data in (content, converted))
    picture = [image().numpy()]
    assert one.spec == other.spec
    assert np.array_equal(one.describe(picture), other.describe(picture))
    assert formats.to_bytes(formats.network(read_weights(content)), content) == converted
    path = tmp_path / "model.safetensors"
    path.write_bytes(converted)
    with safe_open(path, "numpy") as file:
        card = json.loads(file.metadata()["vladmap"])
    assert len(card["source"]["sha256"]) == 64
    assert card["preprocessing"]["size"]["largest"] in (640, 1024)


def test_patch_netvlad_gives_patches_whitened_as_its_global_descriptor() -> None:
    name, content = held("Patch-NetVLAD")
    model = load_model(name, content)
    picture = image(160, 144)
    assert model.spec.patch_sizes == (2, 5, 8)
    found, centres = model.describe_patches([picture.numpy()])
    assert [rows.shape for rows in found] == [(1, 8 * 9, 5), (1, 5 * 6, 5), (1, 2 * 3, 5)]
    state = pytorch_netvlad_state(CLUSTERS, bias=True)
    x = networks.normalised(picture, IMAGENET_MEAN, IMAGENET_STD)
    vgg = {n.removeprefix("encoder."): t for n, t in state.items() if n[0] == "e"}
    features = networks.vgg16(x, vgg)
    weight, bias = pca(CLUSTERS * 512)
    cells = features[:, :, 1:6, 2:7]  # the patch of 5 cells at row 1, column 2
    rows = networks.netvlad(
        cells,
        state["pool.conv.weight"].flatten(1),
        state["pool.centroids"],
        state["pool.conv.bias"],
    )
    expected = weight.double() @ (rows.flatten() / rows.norm()) + bias
    expected /= expected.norm()
    assert np.abs(found[1][0, 1 * 6 + 2] - expected.numpy()).max() < 1e-5
    assert centres[1][1 * 6 + 2].tolist() == [16 * 4 + 7.5, 16 * 3 + 7.5]


def test_patches_of_images_of_different_sizes_are_refused() -> None:
    name, content = held("Patch-NetVLAD")
    model = load_model(name, content)
    with pytest.raises(ValueError, match="group them by size"):
        model.describe_patches([image(160, 144).numpy(), image(144, 160).numpy()])


def test_a_model_without_patches_says_so() -> None:
    with pytest.raises(ValueError, match="no patch descriptors"):
        load_model("gem").describe_patches([image().numpy()])


def test_gem_on_the_installed_backbone_needs_no_checkpoint() -> None:
    found = load_model("gem").describe([image().numpy()])
    assert found.shape == (1, 112)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("netvlad-lite", "vgg16 conv5_3, which is not netvlad-lite's backbone"),
        ("supervlad", "ends in NetVLAD, supervlad needs SuperVLAD"),
        ("vlad", "not a vocabulary for vlad"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_model(name, saved({"state_dict": pytorch_netvlad_state(2, bias=False)}))


def damaged_cases() -> list[tuple[bytes, str]]:
    mat = matconvnet(True)
    return [
        (mat[: len(mat) // 2], "truncated or damaged"),
        (b"MATLAB 7.3 MAT-file" + bytes(200), "save it in MATLAB again"),
        (another(), "no MatConvNet network"),
    ]


def another() -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, {"other": 1})
    return buffer.getvalue()


@pytest.mark.parametrize("case", [0, 1, 2])
def test_a_damaged_matlab_file_is_one_clear_line(case: int) -> None:
    content, says = damaged_cases()[case]
    with pytest.raises(UserError, match=says) as caught:
        load_model("netvlad", content)
    assert "\n" not in str(caught.value)
