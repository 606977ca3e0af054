"""What a training run leaves on disk: its state, from which it goes on, and its curve."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from models.checkpoints import read_weights
from schemas.rejects import UserError

START, BEST, LAST = "start.safetensors", "best.safetensors", "last.safetensors"
CURVE = "curve.csv"
STATE = "state.json"

_COLUMNS = ("epoch", "loss", "rate", "recall@1", "recall@5", "recall@10")


@dataclass
class Progress:
    """Where a run is: `epoch` epochs are done, and `curve` has a row for each and for the start.

    `remembered` (Q, H) are the hard negatives of each query's last round, -1 where there are none.
    """

    epoch: int
    remembered: NDArray[np.int64]
    curve: list[dict[str, float]] = field(default_factory=list)

    def best(self) -> int:
        """The epoch of the highest recall@5; of those the highest recall@1, then the first."""
        return max(
            range(len(self.curve)),
            key=lambda n: (self.curve[n]["recall@5"], self.curve[n]["recall@1"], -n),
        )


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; UserError where the disk refuses."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def save_state(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    about: Mapping[str, Any],
) -> None:
    """Everything that the next epoch depends on, in `state.json` and the tensors that it names.

    `about` says which run it is. A run killed while it writes keeps the state before.
    """
    tensors: dict[str, Tensor] = {
        f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad
    }
    for index, entries in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in entries.items()}
    tensors["remembered"] = torch.from_numpy(progress.remembered)
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    name = f"state-{progress.epoch:04d}.safetensors"
    write_file(folder / name, to_safetensors(tensors))
    content = {
        "about": about,
        "epoch": progress.epoch,
        "tensors": name,
        "scaler": scaler.state_dict(),
        "curve": progress.curve,
    }
    write_file(folder / STATE, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load_state(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    about: Mapping[str, Any],
) -> Progress:
    """Bring a run back to where it was saved.

    Raises UserError where there is nothing to go on from, or it is of other options or data.
    """
    path = folder / STATE
    try:
        content = json.loads(path.read_bytes())
        before = content["about"]
        name, scale, epoch = content["tensors"], content["scaler"], int(content["epoch"])
        curve = list(content["curve"])
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no run to resume: leave out --resume") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: train again into another folder") from error
    now = json.loads(json.dumps(about))
    changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if changed:
        told = ", ".join(f"{key} was {before.get(key)}" for key in changed)
        raise UserError(f"{folder} cannot be resumed with other options or data: {told}")
    tensors = read_weights(folder / name).tensors
    state: dict[int, dict[str, Tensor]] = {}
    try:
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[f"model.{key}"])
        for key, tensor in tensors.items():
            if key.startswith("optimiser."):
                _, index, entry = key.split(".")
                state.setdefault(int(index), {})[entry] = tensor
        remembered = tensors["remembered"].numpy()
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder / name} does not belong to this run: {error}") from error
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    scaler.load_state_dict(scale)
    return Progress(epoch, remembered, curve)


def write_curve(
    folder: Path, curve: Sequence[Mapping[str, float]], columns: Sequence[str] = _COLUMNS
) -> None:
    """The curve as a CSV of `columns`: a row for the start and one for each time it was judged."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(curve)
    write_file(folder / CURVE, text.getvalue().encode())


class Board:
    """The curve for TensorBoard, where it is installed; nothing where it is not."""

    def __init__(self, folder: Path) -> None:
        self._writer = None
        with contextlib.suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"))

    def add(self, values: Mapping[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
