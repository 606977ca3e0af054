from __future__ import annotations

import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.models.synthetic import photographs, pytorch_netvlad_state, saved, vgg16_state
from vladmap.models import load_model
from vladmap.models.backbones.vgg import VGG16
from vladmap.models.checkpoints import vocabulary
from vladmap.models.checkpoints.layouts import network
from vladmap.schemas.rejects import UserError
from vladmap.weights.reading import is_vocabulary, read_weights


class Hostile:
    """Unpickled without care, it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _refused(content: bytes) -> str:
    with pytest.raises(UserError) as caught:
        load_model("netvlad", content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_refused_and_never_runs(tmp_path: Path, zipped: bool) -> None:
    trap = tmp_path / "trap"
    content = saved(
        {"state_dict": {"pool.centroids": Hostile(trap)}},
        _use_new_zipfile_serialization=zipped,
    )
    assert "could run code" in _refused(content)
    assert not trap.exists()


def test_numpy_scores_beside_the_weights_are_no_reason_to_refuse() -> None:
    # pytorch-NetVlad stores its best recall, a NumPy number, in every checkpoint.
    content = {
        "epoch": 3,
        "state_dict": {"a": torch.ones(2)},
        "best_score": np.float64(0.85),
        "recalls": {1: np.float32(0.8)},
        "optimizer": {"state": {}},
    }
    for zipped in (True, False):
        file = read_weights(saved(content, _use_new_zipfile_serialization=zipped))
        assert file.tensors["a"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_one_clear_line(share: float) -> None:
    state = {"features.0.weight": torch.ones(64, 3, 3, 3)}
    for content in (saved(state), safetensors.torch.save(state)):
        message = _refused(content[: int(share * len(content))])
        assert "truncated or damaged" in message or "not a checkpoint" in message


def test_nan_weights_are_named() -> None:
    state = pytorch_netvlad_state(4, bias=True)
    state["encoder.5.weight"][3, 2, 1, 0] = torch.nan
    assert "NaN or infinite weights in encoder.5.weight" in _refused(saved({"state_dict": state}))


@pytest.mark.parametrize("missing", ["encoder.28.bias", "pool.conv.weight", "pool.centroids"])
def test_a_missing_entry_is_named(missing: str) -> None:
    state = pytorch_netvlad_state(4, bias=True)
    del state[missing]
    assert f"lacks {missing}" in _refused(saved({"state_dict": state}))


def test_centres_and_assignment_of_different_counts_are_refused() -> None:
    state = pytorch_netvlad_state(4, bias=False)
    state["pool.conv.weight"] = torch.ones(8, 512, 1, 1)
    message = _refused(saved({"state_dict": state}))
    assert "pool.conv.weight has shape (8, 512, 1, 1), expected (4, 512, 1, 1)" in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (saved({"stem.weight": torch.ones(1)}), "no checkpoint that is known"),
        (saved([1, 2]), "holds list"),
        (b"<html>not found</html>", "not a checkpoint"),
        (b"", "not a checkpoint"),
    ],
)
def test_files_of_another_kind_are_told_apart(content: bytes, says: str) -> None:
    assert says in _refused(content)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match="no-such-file"):
        load_model("netvlad", "no-such-file")


def test_a_backbone_alone_asks_for_centres_to_be_learnt() -> None:
    state = {f"features.{name}": tensor for name, tensor in vgg16_state().items()}
    assert "learn the clusters of netvlad" in _refused(saved(state))


def _reference(state: dict[str, Tensor], image: np.ndarray) -> np.ndarray:
    """What pytorch-NetVlad's definition prescribes, in float64."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].double() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (pixels - mean[:, None, None]) / std[:, None, None]
    backbone = VGG16({k.removeprefix("encoder."): v for k, v in state.items() if k[0] == "e"})
    with torch.inference_mode():
        local = backbone.double()(x)[0].flatten(1)
    local = (local / local.norm(dim=0)).numpy()
    scores = state["pool.conv.weight"].flatten(1).double().numpy() @ local
    if "pool.conv.bias" in state:
        scores += state["pool.conv.bias"].double().numpy()[:, None]
    shares = np.exp(scores - scores.max(axis=0))
    shares /= shares.sum(axis=0)
    centres = state["pool.centroids"].double().numpy()
    rows = []
    for share, centre in zip(shares, centres, strict=True):
        residual = sum(s * (column - centre) for s, column in zip(share, local.T, strict=True))
        rows.append(residual / np.linalg.norm(residual))
    flat = np.concatenate(rows)
    return flat / np.linalg.norm(flat)


@pytest.mark.parametrize("bias", [True, False])
def test_a_pytorch_netvlad_checkpoint_gives_its_descriptors(bias: bool) -> None:
    state = pytorch_netvlad_state(4, bias=bias)
    wrapped = {
        name.replace("encoder.", "encoder.module.").replace("pool.", "pool.module."): tensor
        for name, tensor in state.items()
    }
    model = load_model("netvlad", saved({"epoch": 1, "state_dict": wrapped}))
    image = photographs(1, 320, 48)[0]
    assert model.spec.dimension == 4 * 512
    assert np.abs(model.describe([image])[0] - _reference(state, image)).max() < 1e-5


def test_a_pca_in_the_checkpoint_is_applied_whatever_its_precision() -> None:
    state = pytorch_netvlad_state(2, bias=True)
    generator = torch.Generator().manual_seed(5)
    state["WPCA.0.weight"] = torch.randn(6, 1024, 1, 1, generator=generator).double()
    state["WPCA.0.bias"] = torch.randn(6, generator=generator).double()
    model = load_model("netvlad", safetensors.torch.save(state))
    image = photographs(1, 320, 48)[0]
    plain = _reference(state, image)
    expected = state["WPCA.0.weight"].flatten(1).numpy() @ plain + state["WPCA.0.bias"].numpy()
    expected /= np.linalg.norm(expected)
    assert model.spec.dimension == 6
    assert model.describe([image])[0] == pytest.approx(expected, abs=1e-5)


def test_a_torchvision_file_is_read_without_its_classifier() -> None:
    state = {f"features.{name}": tensor for name, tensor in vgg16_state().items()}
    state["classifier.0.weight"] = torch.ones(3, 3)
    found = network(read_weights(saved(state)))
    assert found.aggregation is None
    assert len(found.backbone.weights) == 26


def _safetensors(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _with_card(card: str) -> bytes:
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return _safetensors({"a": one, "__metadata__": {"vladmap": card}}, b"\0" * 4)


def _saved(content: object, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


_WHOLE = _saved({"a": torch.ones(8)}, zipped=False)
DAMAGED = {
    "card is a list": _with_card("[]"),
    "card is a number": _with_card("NaN"),
    "card is nothing": _with_card("null"),
    "card is deep": _with_card("[" * 100_000),
    "card of a vocabulary, version as text": _with_card(
        '{"kind": "vocabulary", "schema_version": "1"}'
    ),
    "card of a model, version as text": _with_card('{"kind": "model", "schema_version": "1"}'),
    "card of a model and no more": _with_card('{"kind": "model"}'),
    "metadata is a list": _safetensors({"__metadata__": [1]}),
    "header is deep": _safetensors(b"{" + b'"a":[' * 100_000),
    "a tensor of 400 GB": _safetensors(
        {"a": {"dtype": "F32", "shape": [10**11], "data_offsets": [0, 4 * 10**11]}}
    ),
    "a stretched tensor of 400 GB": _saved({"a": torch.ones(1).expand(10**11)}),
    "a tensor without numbers": _saved({"a": torch.empty(10**11, device="meta")}),
    "a sparse tensor": _saved({"a": torch.eye(3).to_sparse()}),
    **{f"cut at {end}": _WHOLE[:end] for end in range(12, len(_WHOLE) - 1, 23)},
    **{
        f"{value:#x} at {place}": _WHOLE[:place] + bytes([value]) + _WHOLE[place + 1 :]
        for place in range(2, 120, 7)
        for value in (0x28, 0x30, 0x65)
    },
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_weights_are_an_error_of_one_line(name: str) -> None:
    """Issue 19, 21: metadata that is no object, deep JSON, a tensor of 400 GB were tracebacks."""
    with pytest.raises(UserError) as refused:
        _read(DAMAGED[name])
    assert len(str(refused.value).splitlines()) == 1


def _read(data: bytes) -> None:
    file = read_weights(data)
    vocabulary.parse(file) if is_vocabulary(file) else network(file)
