"""What every backbone must keep. A test class inherits from `BackboneContract`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from vladmap.models.backbones.registry import Backbone, backbone_of, is_backbone
from vladmap.models.backbones.view import View
from vladmap.schemas.rejects import UserError
from vladmap.weights.entries import Entries


class BackboneContract(ABC):
    """`state` is a file of the backbone, by the names that its weights have everywhere."""

    name: ClassVar[str]
    channels: ClassVar[int]
    stride: ClassVar[int]
    pixels: ClassVar[tuple[int, int]] = (64, 96)
    class_token: ClassVar[bool] = False

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Seeded weights, the same each time."""

    def images(self, count: int) -> Tensor:
        return torch.randn(count, 3, *self.pixels, generator=torch.Generator().manual_seed(1))

    def of(self, state: dict[str, Tensor]) -> Backbone:
        own = backbone_of(Entries("a file", state, "x."))
        own.network.eval()
        return own

    def test_its_weights_are_recognised_among_others(self) -> None:
        state = self.state() | {"classifier.99.weight": torch.ones(3)}
        assert is_backbone(state)
        own = self.of(state)
        assert own.name == self.name
        assert "classifier.99.weight" not in own.weights

    @torch.inference_mode()
    def test_the_map_has_the_channels_and_the_stride_that_it_says(self) -> None:
        own = self.of(self.state())
        maps = own.network(self.images(2))
        assert own.channels == self.channels
        assert own.features().stride == self.stride
        assert maps.shape == (2, self.channels, *(side // self.stride for side in self.pixels))
        assert bool(torch.isfinite(maps).all())

    @torch.inference_mode()
    def test_a_map_does_not_depend_on_the_other_images_of_its_batch(self) -> None:
        own, images = self.of(self.state()), self.images(3)
        together = own.network(images)
        alone = torch.cat([own.network(image[None]) for image in images])
        scale = together.abs().max()
        assert (together - alone).abs().max() <= 1e-5 * scale
        assert (together[0] - together[1]).abs().max() > 1e-3 * scale

    @torch.inference_mode()
    def test_it_comes_back_from_its_own_state_dict(self) -> None:
        own = self.of(self.state())
        again = self.of(own.network.unfolded())  # type: ignore[operator]
        assert torch.equal(own.network(self.images(1)), again.network(self.images(1)))

    def test_each_missing_or_misshapen_weight_is_an_error_of_one_line(self) -> None:
        weights = dict(self.of(self.state()).weights)
        for name in sorted(weights)[:: max(1, len(weights) // 12)]:
            rest = {other: tensor for other, tensor in weights.items() if other != name}
            for damaged in (rest, rest | {name: torch.ones(2, 3, 4, 5, 6)}):
                with pytest.raises(UserError, match=r"^a file") as refused:
                    self.of(damaged)
                assert "\n" not in str(refused.value)

    def test_a_class_token_is_there_or_refused(self) -> None:
        entries = Entries("a file", self.state())
        view = View(class_token=True)
        if not self.class_token:
            with pytest.raises(UserError, match="has no class token"):
                backbone_of(entries, view=view)
            return
        own = backbone_of(entries, view=view)
        with torch.inference_mode():
            maps, token = own.network.eval()(self.images(2))
        assert token.shape == (2, self.channels)
        assert torch.equal(maps, self.of(self.state()).network(self.images(2)))
        assert own.features().digest != self.of(self.state()).features().digest
