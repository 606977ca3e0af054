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

from vladmap.schemas.rejects import UserError
from vladmap.weights.reading import read_weights

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
    """Everything that the next epoch of `vladmap train` depends on; `about` says what run it is."""
    tensors: dict[str, Tensor] = {
        f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad
    }
    tensors |= optimiser_tensors(optimiser)
    tensors["remembered"] = torch.from_numpy(progress.remembered)
    content = {
        "about": about,
        "epoch": progress.epoch,
        "scaler": scaler.state_dict(),
        "curve": progress.curve,
    }
    write_state(folder, progress.epoch, tensors, content)


def load_state(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    about: Mapping[str, Any],
) -> Progress:
    """Bring a run of `vladmap train` back to where it was saved; errors as of `read_state`."""
    content, tensors = read_state(folder, about)
    try:
        progress = Progress(
            int(content["epoch"]), tensors["remembered"].numpy(), list(content["curve"])
        )
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[f"model.{key}"])
        load_optimiser(optimiser, tensors)
        scaler.load_state_dict(content["scaler"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the state in {folder} does not belong to this run: {error}") from error
    return progress


def write_state(
    folder: Path, done: int, tensors: Mapping[str, Tensor], content: Mapping[str, Any]
) -> None:
    """A run's state after `done` epochs or steps: `content` and the name of the file of `tensors`
    in `state.json`. `content["about"]` says which run it is, `content["curve"]` how it went.

    A run killed while it writes keeps the state before.
    """
    name = f"state-{done:04d}.safetensors"
    whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    write_file(folder / name, to_safetensors(whole))
    said = json.dumps({**content, "tensors": name}, indent=1, sort_keys=True)
    write_file(folder / STATE, (said + "\n").encode())
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def read_state(
    folder: Path, about: Mapping[str, Any]
) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """The content and the tensors that `write_state` left.

    Raises UserError where there is nothing to go on from, or it is of other options or data.
    """
    path = folder / STATE
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        before, name, _ = content["about"], content["tensors"], content["curve"][-1]
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no run to resume: leave out --resume") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} is damaged: train again into another folder") from error
    now = json.loads(json.dumps(about))
    changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if changed:
        told = ", ".join(f"{key} was {before.get(key)}" for key in changed)
        raise UserError(f"{folder} cannot be resumed with other options or data: {told}")
    return content, read_weights(folder / name).tensors


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers of each parameter, under names that `load_optimiser` knows."""
    return {
        f"optimiser.{index}.{key}": value
        for index, entries in optimiser.state_dict()["state"].items()
        for key, value in entries.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser back what `optimiser_tensors` said of it."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, index, entry = key.split(".")
            state.setdefault(int(index), {})[entry] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


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
