"""What every aggregation must keep. A test class inherits from `AggregationContract`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from vladmap.models.aggregations.base import Aggregation
from vladmap.models.aggregations.registry import AGGREGATIONS
from vladmap.models.backbones.view import WHOLE_MAP
from vladmap.models.kinds import KINDS, TRAINABLE
from vladmap.schemas.rejects import UserError
from vladmap.weights.entries import Entries


class AggregationContract(ABC):
    """`layer` builds the aggregation, `by_definition` computes it in float64 without it."""

    channels: ClassVar[int] = 12
    cells: ClassVar[tuple[int, int]] = (5, 4)
    unit_length: ClassVar[bool] = True
    permutable: ClassVar[bool] = True
    """Whether the order of the locations does not matter."""

    @abstractmethod
    def layer(self) -> Aggregation:
        """The aggregation with seeded weights, the same each time."""

    @abstractmethod
    def by_definition(self, maps: Tensor, token: Tensor) -> Tensor:
        """(1, D, H, W) and (1, D) in float64 -> (`dimension`,) in float64."""

    def inputs(self, count: int, seed: int = 0) -> list[Tensor]:
        """Feature maps of `count` images, with class tokens where the aggregation takes them."""
        generator = torch.Generator().manual_seed(seed)
        maps = torch.randn(count, self.channels, *self.cells, generator=generator)
        token = torch.randn(count, self.channels, generator=generator)
        return [maps, token] if self.takes_token() else [maps]

    def takes_token(self) -> bool:
        return self.layer().view({"cls_token": torch.zeros(0)}).class_token

    def test_it_is_its_definition_in_float64(self) -> None:
        inputs = self.inputs(3, seed=11)
        with torch.inference_mode():
            rows = self.layer()(*inputs)
        for n, row in enumerate(rows):
            own = [each[n : n + 1].double() for each in inputs]
            expected = self.by_definition(own[0], own[-1])
            assert row.shape == expected.shape
            assert (row - expected).abs().max() <= 1e-5 * expected.abs().max()

    def test_a_descriptor_is_float32_as_long_as_the_dimension_says_and_of_unit_length(self) -> None:
        layer = self.layer()
        with torch.inference_mode():
            rows = layer(*self.inputs(2))
        assert rows.dtype == torch.float32
        assert rows.shape == (2, layer.dimension)
        assert bool(torch.isfinite(rows).all())
        if self.unit_length:
            assert rows.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)

    def test_the_same_maps_give_the_same_bytes(self) -> None:
        inputs = self.inputs(2)
        with torch.inference_mode():
            one, other = (self.layer()(*inputs) for _ in range(2))
        assert torch.equal(one, other)

    def test_a_descriptor_does_not_depend_on_the_other_images_of_its_batch(self) -> None:
        inputs = self.inputs(4)
        layer = self.layer()
        with torch.inference_mode():
            together = layer(*inputs)
            alone = torch.cat([layer(*(x[n : n + 1] for x in inputs)) for n in range(4)])
            swapped = layer(*(x[[2, 0, 3, 1]] for x in inputs))
        assert (together - alone).abs().max() <= 1e-6
        assert (together[[2, 0, 3, 1]] - swapped).abs().max() <= 1e-6
        assert (together[0] - together[1]).abs().max() > 1e-4

    def test_the_order_of_the_locations_matters_as_it_says(self) -> None:
        inputs = self.inputs(1)
        maps = inputs[0].flatten(2)
        order = torch.randperm(maps.shape[2], generator=torch.Generator().manual_seed(2))
        shuffled = maps[:, :, order].unflatten(2, self.cells)
        layer = self.layer()
        with torch.inference_mode():
            change = (layer(*inputs) - layer(shuffled, *inputs[1:])).abs().max()
        assert (float(change) <= 1e-5) == self.permutable

    def test_it_comes_back_from_its_tensors_and_its_card(self) -> None:
        layer = self.layer()
        tensors = load(save({name: t.contiguous() for name, t in layer.state_dict().items()}))
        entries = Entries("a file", tensors)
        again = type(layer).from_tensors(entries, self.channels, layer.card())
        assert again.card() == layer.card()
        assert layer.card()["name"] == layer.name
        inputs = self.inputs(1)
        with torch.inference_mode():
            assert torch.equal(layer(*inputs), again(*inputs))

    def test_each_missing_tensor_and_each_wrong_shape_is_an_error_of_one_line(self) -> None:
        layer = self.layer()
        tensors = layer.state_dict()
        for name, tensor in tensors.items():
            rest = {other: t for other, t in tensors.items() if other != name}
            grown = torch.zeros(*(length + 1 for length in tensor.shape), 2)
            for damaged in (rest, rest | {name: grown}):
                if name in self.optional() and name not in damaged:
                    continue
                with pytest.raises(UserError, match=f"a file.*x\\.{name}") as refused:
                    type(layer).from_tensors(
                        Entries("a file", damaged, "x."), self.channels, layer.card()
                    )
                assert "\n" not in str(refused.value)

    def optional(self) -> tuple[str, ...]:
        """Tensors that a file need not have."""
        return ()

    def test_it_is_registered_and_says_what_it_can_do(self) -> None:
        layer = self.layer()
        assert AGGREGATIONS[layer.name] is type(layer)
        assert layer.trainable == (layer.name in TRAINABLE)
        kinds = [kind for kind in KINDS.values() if kind.aggregation == layer.name]
        assert kinds
        for kind in kinds:
            assert kind.learns == layer.learns_words
            assert not kind.patch_sizes or layer.has_patches
        if layer.trainable:
            assert layer.view({}) == WHOLE_MAP

    def test_words_make_it_where_it_says_so(self) -> None:
        layer = self.layer()
        words = torch.randn(
            5 + layer.spare_words, self.channels, generator=torch.Generator().manual_seed(1)
        )
        if not layer.learns_words:
            with pytest.raises(ValueError, match="not made of words"):
                type(layer).from_words(words, 10.0)
            return
        made = type(layer).from_words(words, 10.0)
        assert made.dimension == 5 * self.channels
        rows = made(*self.inputs(2))
        assert rows.shape == (2, 5 * self.channels)

    def test_patches_are_there_where_it_says_so(self) -> None:
        layer = self.layer()
        maps = self.inputs(2)[0]
        if not layer.has_patches:
            with pytest.raises(ValueError, match="no patch descriptors"):
                layer.patches(maps, (2,))
            return
        (rows,) = layer.patches(maps, (2,))
        down, across = self.cells[0] - 1, self.cells[1] - 1
        assert rows.shape == (2, down * across, layer.dimension)
        assert bool(((rows.norm(dim=2) - 1).abs() < 1e-5).all())
