"""Tensors that say they lie on a GPU and hold nothing: torch computes their shapes and devices.

Where a tensor of the CPU meets one of the GPU torch raises, as it would on a card.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vladmap.models.aggregated import AggregatedModel

CUDA = torch.device("cuda")


class FakeGpu(FakeTensorMode):
    """A block in which tensors can be made on `CUDA`."""

    def moved(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A fake on the GPU of a real tensor."""
        fake = self.from_tensor(tensor)
        with self:
            return fake.to(CUDA) if dtype is None else fake.to(CUDA, dtype)

    def move(self, module: nn.Module, dtype: torch.dtype | None = None) -> None:
        """Put a network's weights there, in place."""
        for part in module.modules():
            for name, parameter in list(part._parameters.items()):
                if parameter is not None:
                    learns = parameter.requires_grad
                    part._parameters[name] = nn.Parameter(self.moved(parameter, dtype), learns)
            for name, buffer in list(part._buffers.items()):
                if buffer is not None:
                    part._buffers[name] = self.moved(buffer, dtype)

    def move_model(self, model: AggregatedModel, precision: torch.dtype) -> None:
        """Put a model there, its backbone and the product of its patches in `precision`."""
        features = model._features
        self.move(features._network, precision)
        features.device, features._dtype, features.precision = CUDA, precision, precision
        features._mean = self.moved(features._mean)
        features._scale = self.moved(features._scale)
        self.move(model._aggregation)
        if model._whiten is not None:
            self.move(model._whiten)
        if model._whiten_patches is not None:
            self.move(model._whiten_patches)
            with self:
                model._whiten_patches.weight = model._whiten_patches.weight.to(precision)
