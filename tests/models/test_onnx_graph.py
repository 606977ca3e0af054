"""Networks as graphs in ONNX, run by onnxruntime, against the models themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.torch import save

from tests.models import networks
from tests.models.aggregations import test_boq, test_megaloc
from tests.models.synthetic import photographs
from vladmap.models import DescriptorModel, learning, load_model, onnx_graph
from vladmap.models.checkpoints import vocabulary
from vladmap.schemas.rejects import UserError

pytestmark = pytest.mark.medium
onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")

MOST = 1e-4


def difference(model: DescriptorModel, data: bytes, sizes: list[tuple[int, int]]) -> float:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = 0.0
    for count, size in enumerate(sizes, start=1):
        images = photographs(count, *size, seed=count)
        (found,) = session.run(None, {"pixels": np.stack(images)})
        assert found.shape == (count, model.spec.dimension)
        worst = max(worst, float(np.abs(found - model.describe(images)).max()))
    return worst


def seen_apart(model: DescriptorModel, size: tuple[int, int]) -> float:
    one, other = model.describe(photographs(2, *size))
    return float(np.abs(one - other).max())


@pytest.mark.slow
def test_megaloc_is_itself_at_any_size() -> None:
    """Cells counted by rounding half to even, positions resampled, shares by their number."""
    model = load_model("megaloc", save(test_megaloc.published()))
    data = onnx_graph.to_onnx(model)
    # On the grid of the positions, 28.5 and 21.5 cells, and off the multiples of a cell.
    sizes = [(448, 336), (399, 301), (56, 56), (140, 401)]
    assert difference(model, data, sizes) < MOST < seen_apart(model, (448, 336)) / 10
    told = {each.key: each.value for each in onnx.load_from_string(data).metadata_props}
    assert told["model_fingerprint"] == model.spec.fingerprint
    assert json.loads(told["size"]) == {"shortest": 126, "longest": 448}


def test_boqs_own_resampling_is_in_the_graph() -> None:
    model = load_model("boq", save(test_boq.of_transformer()))
    data = onnx_graph.to_onnx(model)
    sizes = [(1024, 768), (301, 517), (322, 322)]
    assert difference(model, data, sizes) < MOST < seen_apart(model, (301, 517)) / 10


@pytest.fixture(scope="module")
def supervlad() -> DescriptorModel:
    weights = save(networks.dinov2_state(width=64, blocks=1, side=23))
    drawn = learning.sample_local_descriptors("supervlad", weights, photographs(4, 322, 322), 99, 0)
    return load_model("supervlad", vocabulary.to_bytes(learning.fit("supervlad", weights, drawn)))


@pytest.fixture(scope="module")
def exported(supervlad: DescriptorModel) -> bytes:
    return onnx_graph.to_onnx(supervlad)


def test_the_same_model_is_the_same_bytes_which_tell_no_place_of_the_machine(
    supervlad: DescriptorModel, exported: bytes
) -> None:
    assert onnx_graph.to_onnx(supervlad) == exported
    assert b".py" not in exported
    assert difference(supervlad, exported, [(322, 322)] * 3) < MOST
    assert onnx_graph.largest_difference(supervlad, exported) < MOST
    assert seen_apart(supervlad, (322, 322)) > 10 * MOST


def test_a_graph_of_other_weights_is_found_out(supervlad: DescriptorModel, exported: bytes) -> None:
    proto = onnx.load_from_string(exported)
    weights = next(each for each in proto.graph.initializer if "assignment" in each.name)
    values = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.05), weights.name))
    assert onnx_graph.largest_difference(supervlad, proto.SerializeToString()) > MOST


def test_a_graph_for_fewer_images_is_found_out(supervlad: DescriptorModel, exported: bytes) -> None:
    proto = onnx.load_from_string(exported)
    first = proto.graph.input[0].type.tensor_type.shape.dim[0]
    assert first.dim_param
    first.dim_value = 2
    with pytest.raises(UserError, match="does not take 3 images of 322 x 322"):
        onnx_graph.largest_difference(supervlad, proto.SerializeToString())


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(UserError, match="thumbnail is no network"):
        onnx_graph.to_onnx(load_model("thumbnail"))
