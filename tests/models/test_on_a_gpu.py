"""Where tensors lie on a GPU: torch's fake ones, which raise where two devices meet. No numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.gpu.inputs import SMALL, weights
from tests.models.fake_gpu import CUDA, FakeGpu
from tests.models.test_encoded import jpeg, known
from vladmap.models import load_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.backbones.registry import installed
from vladmap.models.encoded import decoded_stack
from vladmap.models.training.distillation import _maps, _rows, relational_loss
from vladmap.weights.preprocessing import IMAGENET_MEAN, IMAGENET_STD, FixedSize, Preprocessing


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu()


@pytest.mark.slow
@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["netvlad-lite", "netvlad"])
def test_a_batch_stays_on_the_gpu_from_pixels_to_packed_descriptors_and_patches(
    name: str, precision: torch.dtype, gpu: FakeGpu
) -> None:
    model = load_model(name, weights(name, SMALL, "cpu"))
    assert isinstance(model, AggregatedModel)
    gpu.move_model(model, precision)
    width, height = 320, 240
    with gpu:
        stack = torch.zeros(4, height, width, 3, dtype=torch.uint8, device=CUDA)
        for sizes in ((), (5,), (2, 5, 8)):
            packed = model.packed(stack, sizes)
            patches = sum((16 - size) * (21 - size) for size in sizes)
            # A row of the descriptor and of each patch's scale in float32, of patches in int8.
            assert packed.shape == (4, 4 * 32 + patches * (4 + model._patch_dimension))
            assert packed.device.type == "cuda"


def test_two_devices_that_meet_are_an_error(gpu: FakeGpu) -> None:
    """The tests here rest on it."""
    with gpu, pytest.raises(RuntimeError, match="same device"):
        torch.zeros(3, device=CUDA) + torch.ones(3)


@pytest.mark.medium
def test_what_a_gpu_decodes_is_turned_and_resized_there(gpu: FakeGpu) -> None:
    pictures = [known(jpeg(n, orientation=1 + n % 8)) for n in range(12)]

    def decode(files: list[Tensor]) -> list[Tensor]:
        if len(files) > 8:
            raise RuntimeError("unsupported")
        return [torch.zeros(3, 144, 192, dtype=torch.uint8, device=CUDA) for _ in files]

    for wanted in (FixedSize(96, 64), FixedSize(400, 300)):
        size = wanted.target(192, 144)[::-1]
        with gpu:
            stack, errors, on_cpu = decoded_stack(pictures, size, decode, CUDA)
        assert stack.shape == (12, *size, 3)
        assert stack.device.type == "cuda"
        assert not errors
        assert on_cpu == 0


@pytest.mark.medium
def test_a_step_of_distillation_stays_on_the_gpu(gpu: FakeGpu) -> None:
    network = installed().network.requires_grad_(True)
    gpu.move(network)
    preprocessing = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, FixedSize(96, 64))
    with gpu:
        pictures = torch.zeros(2, 64, 96, 3, dtype=torch.uint8, device=CUDA)
        local = _rows(_maps(network, pictures, preprocessing))
        loss = relational_loss(local, local.detach(), 0.1)
    assert local.shape == (2 * 4 * 6, network.channels)
    assert loss.device.type == "cuda"
