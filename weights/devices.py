"""The devices that networks run on, by name. It imports torch only where a device is made."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from vladmap.schemas.rejects import UserError

if TYPE_CHECKING:
    import torch

CPU = "cpu"
DEVICES = (CPU, "cuda")


def torch_device(device: str) -> torch.device:
    """The device called `cpu` or `cuda`; UserError where it is unknown or not there."""
    import torch

    if device not in DEVICES:
        raise UserError(f"unknown device {device!r}: choose one of {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "a GPU was asked for and torch finds none: check the driver and that torch is a "
            "CUDA build, or choose the device cpu"
        )
    return torch.device(device)


def gpu_names() -> list[str]:
    """What the GPUs that CUDA finds on this machine call themselves; none without a driver."""
    import torch

    return [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]


def convolutions() -> AbstractContextManager[None]:
    """A block in which a GPU computes convolutions the same way each time.

    Those in float32 without the TF32 shortcut.
    """
    import torch

    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
