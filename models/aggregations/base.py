"""The interface of aggregations, which combine an image's local descriptors into one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from vladmap.models.backbones.resnet import named_children
from vladmap.models.backbones.view import WHOLE_MAP, View
from vladmap.weights.entries import Entries
from vladmap.weights.preprocessing import Preprocessing


@dataclass(frozen=True)
class Published:
    """The layout of the checkpoints that a method's authors published.

    `marks` are prefixes of tensor names by which a file is recognised: it has all of them, and
    files of other layouts do not. The names of the backbone's tensors begin with the first of the
    prefixes `backbone` that the file has; those of the aggregation's state dict begin with
    `aggregation`. `preprocessing` is that of the authors' program.
    """

    format: str
    marks: tuple[str, ...]
    backbone: tuple[str, ...]
    aggregation: str
    preprocessing: Preprocessing

    def recognises(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether a file with these tensors is such a checkpoint."""
        return all(any(name.startswith(mark) for name in tensors) for mark in self.marks)


class Aggregation(nn.Module, ABC):
    """(N, D, H, W) float32 feature maps -> (N, `dimension`) float32.

    A row depends on its own image alone. Where the `view` includes the class token, (N, D), that is
    the second argument. Classes are listed in `models.aggregations.registry`.

    `name` is its name in model cards. `learns_words`: it can be made of visual words that were
    learnt from a collection, with `spare_words` more than make up a descriptor.
    `needs_no_weights`: it has no weights beside the backbone's. `trainable`: `vladmap train` can
    tune it. `has_patches`: it describes patches of a feature map as well. `published` is the layout
    of its authors' checkpoints, where they have one of their own.
    """

    name: ClassVar[str]
    learns_words: ClassVar[bool] = False
    spare_words: ClassVar[int] = 0
    needs_no_weights: ClassVar[bool] = False
    trainable: ClassVar[bool] = False
    has_patches: ClassVar[bool] = False
    published: ClassVar[Published | None] = None

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Numbers in a descriptor."""

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """Its name and its settings, as far as its tensors do not determine them, for JSON."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, entries: Entries, channels: int, settings: Mapping[str, Any]) -> Self:
        """The layer whose state dict `entries` hold, on a backbone of `channels` channels.

        `settings` are those of a `card`, empty for a checkpoint of its authors. Raises UserError
        where a tensor is missing or has another shape; KeyError, TypeError or ValueError for
        invalid settings.
        """

    @classmethod
    def from_words(cls, centres: Tensor, alpha: float) -> Self:
        """The layer made of (K + `spare_words`, D) visual words.

        `alpha` is the sharpness of soft assignment that suits the sample they were learnt from.
        Raises ValueError for an aggregation without words.
        """
        raise ValueError(f"{cls.__name__} is not made of words")

    @classmethod
    def backbone_entries(cls, entries: Entries) -> Entries:
        """The backbone's tensors in a `published` checkpoint, by the backbone's own names."""
        assert cls.published is not None
        prefixes = cls.published.backbone
        tensors = entries.tensors
        chosen = next(
            (prefix for prefix in prefixes if any(name.startswith(prefix) for name in tensors)),
            prefixes[-1],
        )
        part = entries.under(chosen)
        return part.renamed(named_children(part.tensors))

    @classmethod
    def on_backbone(cls, channels: int) -> Self:
        """The layer on a backbone of `channels` channels.

        Raises ValueError for an aggregation that needs weights.
        """
        raise ValueError(f"{cls.__name__} has weights of its own")

    @classmethod
    def view(cls, backbone_weights: Mapping[str, Tensor]) -> View:
        """What it needs of the backbone with these weights, beside its feature map."""
        return WHOLE_MAP

    def patches(
        self,
        features: Tensor,
        sizes: tuple[int, ...],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> list[Tensor]:
        """Descriptors of square patches of (N, D, H, W) maps.

        Returns one (N, P, d) tensor of unit rows for each of `sizes` in cells. `weight` (d,
        `dimension`) and `bias` (d) whiten a patch's descriptor. Raises ValueError where it has no
        patches, or a map is smaller than a patch.
        """
        raise ValueError(f"{type(self).__name__} has no patch descriptors")
