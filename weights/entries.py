"""The named tensors of a file, checked against the shapes that a network needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from vladmap.schemas.rejects import UserError


@dataclass(frozen=True)
class Entries:
    """Tensors by name; errors give the file (`label`) and the tensor's name in that file.

    In the file, each name begins with `prefix`; `names` maps tensors that were renamed to their
    names in the file.
    """

    label: str
    tensors: Mapping[str, Tensor]
    prefix: str = ""
    names: Mapping[str, str] = field(default_factory=dict)

    def under(self, prefix: str) -> Entries:
        """The tensors whose names begin with `prefix`, without it."""
        part = {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }
        return Entries(self.label, part, self.prefix + prefix)

    def renamed(self, names: Mapping[str, str]) -> Entries:
        """The tensors by new names; `names` maps every present name to the new one."""
        tensors = {names[name]: tensor for name, tensor in self.tensors.items()}
        own = {names[name]: self.names.get(name, name) for name in self.tensors}
        return Entries(self.label, tensors, self.prefix, own)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Tensor:
        """The tensor; raises UserError where there is none of this name."""
        if name not in self.tensors:
            raise UserError(
                f"{self.label} lacks {self.full_name(name)}: the checkpoint is incomplete or of "
                "another network"
            )
        return self.tensors[name]

    def shaped(self, name: str, *shape: int | str) -> Tensor:
        """The tensor, which must have this shape; a letter stands for any length above 0.

        Raises UserError where it is missing or has another shape.
        """
        tensor = self[name]
        fits = tensor.ndim == len(shape) and all(
            length > 0 if isinstance(side, str) else length == side
            for length, side in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            expected = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
            raise UserError(
                f"{self.label}: {self.full_name(name)} has shape {tuple(tensor.shape)}, "
                f"expected ({expected})"
            )
        return tensor

    def number(self, name: str) -> float:
        """The number in a tensor of one element; UserError where it is missing or has more."""
        tensor = self[name]
        if tensor.numel() != 1:
            raise UserError(
                f"{self.label}: {self.full_name(name)} has shape {tuple(tensor.shape)}, "
                "expected a single number"
            )
        return float(tensor)

    def like(self, shapes: Mapping[str, Iterable[int]]) -> dict[str, Tensor]:
        """The tensors named in `shapes`, as float32; raises UserError as `shaped` does."""
        return {name: self.shaped(name, *shape).float() for name, shape in shapes.items()}

    def full_name(self, name: str) -> str:
        """The name of a tensor in the file."""
        return self.prefix + self.names.get(name, name)
