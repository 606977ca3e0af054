"""The files of a training run: its state, from which it can be resumed, and its curve."""

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
    """The progress of a run: `epoch` epochs are done; `curve` has a row for the start and for each.

    `remembered` (Q, H) are the hard negatives of each query from its last round, -1 for none.
    """

    epoch: int
    remembered: NDArray[np.int64]
    curve: list[dict[str, float]] = field(default_factory=list)

    def best(self) -> int:
        """The epoch with the highest recall@5; among equals that with the highest recall@1, or the
        first."""
        return max(
            range(len(self.curve)),
            key=lambda n: (self.curve[n]["recall@5"], self.curve[n]["recall@1"], -n),
        )


def write_file(path: Path, data: bytes) -> None:
    """Write a file completely or not at all; UserError where it cannot be written."""
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
    run: Mapping[str, Any],
) -> None:
    """Save all that the next epoch of `vladmap train` depends on; `run` identifies the run."""
    tensors: dict[str, Tensor] = {
        f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad
    }
    tensors |= optimiser_tensors(optimiser)
    tensors["remembered"] = torch.from_numpy(progress.remembered)
    content = {
        "about": run,
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
    run: Mapping[str, Any],
) -> Progress:
    """Restore a run of `vladmap train` from its saved state; errors as in `read_state`."""
    content, tensors = read_state(folder, run)
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
    """Write a run's state after `done` epochs or steps: `tensors` to a file of their own, `content`
    and the name of that file to `state.json`.

    `content["about"]` identifies the run, `content["curve"]` is its curve. If the run is killed
    while it writes, the previous state remains.
    """
    name = f"state-{done:04d}.safetensors"
    whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    write_file(folder / name, to_safetensors(whole))
    text = json.dumps({**content, "tensors": name}, indent=1, sort_keys=True)
    write_file(folder / STATE, (text + "\n").encode())
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def read_state(folder: Path, run: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """The content and the tensors that `write_state` wrote.

    Raises UserError where there is no state, or it is of other options or data than `run`.
    """
    path = folder / STATE
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        before, name, _ = content["about"], content["tensors"], content["curve"][-1]
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no run to resume: leave out --resume") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} is damaged: train again into another folder") from error
    now = json.loads(json.dumps(run))
    changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if changed:
        differences = ", ".join(f"{key} was {before.get(key)}" for key in changed)
        raise UserError(f"{folder} cannot be resumed with other options or data: {differences}")
    return content, read_weights(folder / name).tensors


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as named tensors, which `load_optimiser` reads."""
    return {
        f"optimiser.{index}.{key}": value
        for index, entries in optimiser.state_dict()["state"].items()
        for key, value in entries.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state of an optimiser from what `optimiser_tensors` returned."""
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
    """Write the curve as a CSV of `columns`: a row for the start and one for each validation."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(curve)
    write_file(folder / CURVE, text.getvalue().encode())


class Board:
    """Writes the curve for TensorBoard if that is installed, else nothing."""

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
