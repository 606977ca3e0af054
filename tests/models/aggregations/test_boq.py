"""BoQ against its definition in float64, from every layout in which its files were published."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from tests.models import networks
from tests.models.aggregations.contract import AggregationContract
from tests.models.backbones.test_resnet import BLOCKS, names_of
from tests.models.synthetic import photographs, saved
from vladmap.models import load_model
from vladmap.models.aggregations.boq import BoQ
from vladmap.models.backbones import resnet
from vladmap.models.checkpoints.layouts import network, to_bytes
from vladmap.schemas.rejects import UserError
from vladmap.weights.entries import Entries
from vladmap.weights.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from vladmap.weights.reading import read_weights

WIDTH, QUERIES, ROWS = 128, 5, 3  # two heads, two blocks


def head_state(channels: int, seed: int = 1) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"proj_c.weight": (WIDTH, channels, 3, 3)}
    norms = ["norm_input"]
    for block in ("boqs.0.", "boqs.1."):
        shapes[f"{block}queries"] = (1, QUERIES, WIDTH)
        for name in ("encoder.self_attn", "self_attn", "cross_attn"):
            shapes[f"{block}{name}.in_proj_weight"] = (3 * WIDTH, WIDTH)
            shapes[f"{block}{name}.in_proj_bias"] = (3 * WIDTH,)
            shapes[f"{block}{name}.out_proj.weight"] = (WIDTH, WIDTH)
            shapes[f"{block}{name}.out_proj.bias"] = (WIDTH,)
        shapes[f"{block}encoder.linear1.weight"] = (7, WIDTH)
        shapes[f"{block}encoder.linear1.bias"] = (7,)
        shapes[f"{block}encoder.linear2.weight"] = (WIDTH, 7)
        shapes[f"{block}encoder.linear2.bias"] = (WIDTH,)
        norms += [f"{block}{n}" for n in ("encoder.norm1", "encoder.norm2", "norm_q", "norm_out")]
    shapes["proj_c.bias"] = (WIDTH,)
    shapes["fc.weight"], shapes["fc.bias"] = (ROWS, 2 * QUERIES), (ROWS,)
    shapes |= {f"{norm}.{part}": (WIDTH,) for norm in norms for part in ("weight", "bias")}
    state = networks.seeded(shapes, seed)
    return state | {f"{norm}.weight": 1 + state[f"{norm}.weight"] for norm in norms}


def by_definition(state: dict[str, Tensor], maps: Tensor) -> Tensor:
    s = {name: tensor.double() for name, tensor in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        deviation = torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-5)
        return centred / deviation * s[f"{name}.weight"] + s[f"{name}.bias"]

    def attention(asking: Tensor, asked: Tensor, name: str) -> Tensor:
        weights, biases = (s[f"{name}.in_proj_{part}"].chunk(3) for part in ("weight", "bias"))
        q, k, v = (
            x @ weight.T + bias
            for x, weight, bias in zip((asking, asked, asked), weights, biases, strict=True)
        )
        mixed = torch.zeros_like(q)
        for head in range(WIDTH // 64):
            part = slice(64 * head, 64 * head + 64)
            mixed[:, part] = torch.softmax(q[:, part] @ k[:, part].T / 8, dim=1) @ v[:, part]
        return mixed @ s[f"{name}.out_proj.weight"].T + s[f"{name}.out_proj.bias"]

    x = functional.conv2d(maps.double(), s["proj_c.weight"], s["proj_c.bias"], padding=1)
    x = norm(x[0].flatten(1).T, "norm_input")
    answers = []
    for block in ("boqs.0", "boqs.1"):
        x = norm(x + attention(x, x, f"{block}.encoder.self_attn"), f"{block}.encoder.norm1")
        hidden = x @ s[f"{block}.encoder.linear1.weight"].T + s[f"{block}.encoder.linear1.bias"]
        hidden = hidden.clamp(min=0) @ s[f"{block}.encoder.linear2.weight"].T
        x = norm(x + hidden + s[f"{block}.encoder.linear2.bias"], f"{block}.encoder.norm2")
        queries = s[f"{block}.queries"][0]
        queries = norm(
            queries + attention(queries, queries, f"{block}.self_attn"), f"{block}.norm_q"
        )
        answers.append(norm(attention(queries, x, f"{block}.cross_attn"), f"{block}.norm_out"))
    rows = torch.cat(answers).T @ s["fc.weight"].T + s["fc.bias"]  # (WIDTH, ROWS)
    return (rows / rows.norm()).flatten()  # channel by channel


class TestBoQ(AggregationContract):
    permutable = False  # its convolution sees neighbours

    def layer(self) -> BoQ:
        return BoQ.from_tensors(Entries("a file", head_state(12)), 12, {})

    def by_definition(self, maps: Tensor, token: Tensor) -> Tensor:
        return by_definition(head_state(12), maps)


def resized(image: np.ndarray, side: int) -> Tensor:
    """Squashed as floating-point numbers, overshoot and all, and then normalised."""
    x = networks.normalised(torch.from_numpy(image.copy()), (0, 0, 0), (1, 1, 1))
    x = functional.interpolate(x, (side, side), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std


def sharp(width: int, height: int) -> np.ndarray:
    """Black and white blocks: bicubic resampling overshoots at their edges."""
    generator = np.random.default_rng(width)
    blocks = generator.integers(0, 2, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return np.ascontiguousarray(255 * blocks.repeat(8, 0).repeat(8, 1)[:height, :width])


RESNET = networks.seeded(resnet.shapes(names_of(18, 3)), seed=4)
OF_RESNET, OF_TRANSFORMER = head_state(256), head_state(64)
TRANSFORMER = networks.dinov2_state(width=64, blocks=1, side=5, seed=5)


def of_resnet(layout: str) -> dict[str, Tensor]:
    """As published since March 2025, and before: with the last layer apart, or with all of them."""
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6}
    parts = {
        "one frozen": ("frozen_layers.0.0", "frozen_layers.0.1", "frozen_layers.1")
        + ("frozen_layers.2", "unfrozen_layers.0"),
        "none frozen": ("unfrozen_layers.0.0", "unfrozen_layers.0.1", "unfrozen_layers.1")
        + ("unfrozen_layers.2", "unfrozen_layers.3"),
    }
    state = {f"aggregator.{name}": tensor for name, tensor in OF_RESNET.items()}
    for name, tensor in RESNET.items():
        child, _, rest = name.partition(".")
        place = f"net.{numbers[child]}"
        if layout in parts:
            place = parts[layout][list(numbers).index(child)]
        state[f"backbone.{place}.{rest}"] = tensor
    return state


def of_transformer() -> dict[str, Tensor]:
    state = {f"backbone.dino.{name}": tensor for name, tensor in TRANSFORMER.items()}
    state |= {f"aggregator.{name}": tensor for name, tensor in OF_TRANSFORMER.items()}
    return state | {"backbone.dino.mask_token": torch.zeros(1, 64)}


@pytest.mark.parametrize(("width", "height"), [(400, 210), (384, 384)])
def test_a_resnets_file_gives_the_descriptors_of_its_definition(width: int, height: int) -> None:
    model = load_model("boq", saved(of_resnet("net")))
    image = sharp(width, height)
    maps = networks.resnet(resized(image, 384), RESNET, BLOCKS[18][:3])
    expected = by_definition(OF_RESNET, maps).numpy()
    assert model.spec.dimension == WIDTH * ROWS
    assert np.abs(model.describe([image])[0] - expected).max() < 1e-5


@pytest.mark.parametrize("last_norm_in_file", [True, False])
def test_a_transformers_file_gives_those_before_its_last_normalisation(
    last_norm_in_file: bool,
) -> None:
    state = of_transformer()
    if not last_norm_in_file:
        del state["backbone.dino.norm.weight"], state["backbone.dino.norm.bias"]
    model = load_model("boq", save(state))
    image = sharp(400, 210)
    maps, _ = networks.dinov2(resized(image, 322), TRANSFORMER, last_norm=False)
    expected = by_definition(OF_TRANSFORMER, maps).numpy()
    assert np.abs(model.describe([image])[0] - expected).max() < 1e-5


@pytest.mark.parametrize("layout", ["one frozen", "none frozen"])
def test_files_of_before_march_2025_are_the_same_model(layout: str) -> None:
    wrapped = {"state_dict": {f"module.{n}": t for n, t in of_resnet(layout).items()}}
    one, other = load_model("boq", save(of_resnet("net"))), load_model("boq", saved(wrapped))
    image = photographs(1, 91, 77)
    assert one.spec == other.spec
    assert np.array_equal(one.describe(image), other.describe(image))


@pytest.mark.parametrize("state", [of_resnet("net"), of_transformer()], ids=["resnet", "dinov2"])
def test_converted_it_is_the_same_model(state: dict[str, Tensor]) -> None:
    content = save(state)
    converted = to_bytes(network(read_weights(content)), content)
    one, other = load_model("boq", content), load_model("boq", converted)
    image = photographs(1, 91, 77)
    assert one.spec == other.spec
    assert np.array_equal(one.describe(image), other.describe(image))


def test_photographs_are_decoded_at_1024_pixels_and_taken_at_any_size() -> None:
    model = load_model("boq", save(of_transformer()))
    assert model.input_long_side(4000, 3000) == (1024, 768)
    assert model.spec.input_size.resized(4000, 3000) == (4000, 3000)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"aggregator.fc.weight": torch.ones(3, 9)}, r"shape \(3, 9\), expected \(3, 10\)"),
        ({"aggregator.boqs.1.queries": None}, "lacks aggregator.boqs.1.queries"),
        ({"aggregator.proj_c.bias": torch.ones(100)}, "100 numbers, expected a multiple of 64"),
        (
            {"aggregator.proj_c.weight": torch.ones(WIDTH, 512, 3, 3)},
            r"expected \(128, 256, 3, 3\)",
        ),
        (
            {"backbone.frozen_layers.2.1.conv2.weight": None},
            "lacks backbone.layer2.1.conv2.weight",
        ),
        (
            {"backbone.frozen_layers.0.0.weight": torch.ones(64, 3, 3, 3)},
            r"backbone.frozen_layers.0.0.weight has shape \(64, 3, 3, 3\)",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(
    change: dict[str, Tensor | None], says: str
) -> None:
    state = of_resnet("one frozen") | change
    with pytest.raises(UserError, match=says) as refused:
        load_model("boq", save({n: t for n, t in state.items() if t is not None}))
    assert "\n" not in str(refused.value)
