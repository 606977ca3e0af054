"""The devices that networks run on, by name. It imports torch only where a device is made."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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


def gpu(device: str) -> torch.device | None:
    """The device where it is no CPU, else None, for which no torch is imported."""
    return None if device == CPU else torch_device(device)


def gpu_names() -> list[str]:
    """What the GPUs that CUDA finds on this machine call themselves; none without a driver."""
    import torch

    return [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]


_exact_lock = threading.Lock()
_exact: list[AbstractContextManager[None]] = []  # the flags while they are set
_exact_users = 0


@contextmanager
def convolutions() -> Iterator[None]:
    """A block in which a GPU computes convolutions the same way each time.

    Those in float32 without the TF32 shortcut. The flags belong to the process: the first of the
    threads in such blocks sets them, the last to leave puts back what was before.
    """
    import torch

    global _exact_users
    with _exact_lock:
        if _exact_users == 0:
            flags = torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            )
            flags.__enter__()
            _exact.append(flags)
        _exact_users += 1
    try:
        yield
    finally:
        with _exact_lock:
            _exact_users -= 1
            if _exact_users == 0:
                _exact.pop().__exit__(None, None, None)
