"""Distillation of a backbone that is robust to light and weather.

The student, a copy of the network, gets views of scenes at night, in fog and in snow, small, noisy
and slightly displaced. The teacher, the unchanged network, gets views of the same scenes in clear
daylight. At each location of its feature map, the student learns to have the same similarities to
the locations of all images in the batch as the teacher has. No labels are needed. Locations that
the teacher finds similar are not pushed apart, so that what the network has learnt before is kept.

Distilling similarities to a bank of features is from Fang et al., "SEED: Self-supervised
distillation for visual representation" (ICLR 2021); here the bank is the batch, location by
location.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from vladmap.models.backbones.registry import Backbone
from vladmap.models.base import Pixels
from vladmap.models.training.augment import augment, moved
from vladmap.models.training.files import load_optimiser, optimiser_tensors
from vladmap.models.training.recipe import Distillation
from vladmap.schemas.rejects import UserError
from vladmap.weights.devices import CPU, convolutions, torch_device
from vladmap.weights.preprocessing import Preprocessing
from vladmap.weights.reading import part_of

_STILL = 1e-6  # least change of a view from its scene
_AT_ONCE = 4  # images in one forward pass, whose locations are compared with each other


@dataclass(frozen=True, eq=False)
class Scenes:
    """N scenes, each with one or more views of it.

    `pictures` (P, H, W, 3) are uint8; `views` has for each scene the rows of its pictures, and
    `clear` the rows of those that the teacher gets.
    """

    pictures: NDArray[np.uint8]
    views: Sequence[NDArray[np.int64]]
    clear: Sequence[NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.views)


def relational_loss(
    student: Tensor, teacher: Tensor, temperature: float, own: bool = False
) -> Tensor:
    """Mean cross entropy of the student's relations to the teacher's locations, in nats.

    Both are (L, C) unit rows; equal rows belong to the same location. The relations of a location
    are the softmax of its cosines to all L locations of the teacher, divided by `temperature`. The
    loss is lowest where each row of the student equals the teacher's. With `own`, the student's
    cosines are to its own locations, for a student with another number of channels; the cosine of a
    location to itself, always 1, is then left out.
    """
    with torch.no_grad():
        cosines = teacher @ teacher.T
    similar = student @ (student if own else teacher).T
    if own:
        itself = torch.eye(len(student), dtype=torch.bool, device=student.device)
        cosines = cosines.masked_fill(itself, -torch.inf)
        similar = similar.masked_fill(itself, -torch.inf)
    target = torch.softmax(cosines / temperature, dim=1)
    log_relations = torch.log_softmax(similar / temperature, dim=1)
    return -(target * log_relations.nan_to_num(neginf=0.0)).sum(dim=1).mean()


def view_shares(maps: Tensor, target: Tensor, hardness: float) -> NDArray[np.float64]:
    """(V,) probabilities of showing each of the V views of a scene; they sum to 1.

    Views that differ more from the target are more probable. `maps` (V, C, h, w) are unit local
    descriptors of the views and `target` (C, h, w) those of the scene.
    """
    change = (1 - (maps * target).sum(1)).mean(dim=(1, 2)).double().clamp(min=_STILL)
    weights: NDArray[np.float64] = (change**hardness).cpu().numpy()
    return weights / weights.sum()


class Distiller:
    """A student and its teacher, step by step."""

    def __init__(
        self,
        backbone: Backbone,
        scenes: Scenes,
        photographs: Scenes,
        settings: Distillation,
        advance: Callable[[int], object] = lambda count: None,
        student: Backbone | None = None,
        device: str = CPU,
    ) -> None:
        """Computes the teacher's output for each scene, on `device`, as all steps.

        `advance` is called with the number of scenes done since its last call.

        The student is a copy of the teacher, or another backbone of the same stride, which is then
        never blended with it.

        Raises UserError where a kind of scene that a step shows, or the device, is not there.
        """
        self._device = torch_device(device)
        for kind, number, pool in (
            ("rendered scenes", settings.scenes, scenes),
            ("photographs", settings.photographs, photographs),
        ):
            if number and not len(pool):
                raise UserError(f"there are no {kind} to learn from")
        self._backbone, self.settings = student or backbone, settings
        backbone.network.eval().requires_grad_(False).to(self._device)
        self._teacher_state = None if student else backbone.network.state_dict()

        def looked_at(pool: Scenes) -> tuple[Tensor, list[NDArray[np.float64] | None]]:
            return _targets(backbone, pool, settings.hardness, advance, self._device)

        self._kinds = [
            (pool, *looked_at(pool), number, strength)
            for pool, number, strength in (
                (scenes, settings.scenes, settings.augmentation / 2),
                (photographs, settings.photographs, settings.augmentation),
            )
            if number
        ]
        self.student: nn.Module = copy.deepcopy(self._backbone.network).to(self._device)
        self.student.train().requires_grad_(True)
        self._parameters = list(self.student.parameters())
        self._optimiser = torch.optim.AdamW(
            self._parameters, settings.rate, weight_decay=settings.weight_decay
        )

    def step(self, number: int) -> float:
        """One step, `number` from 0; returns the loss. Random draws depend on the number alone."""
        settings = self.settings
        pictures, targets = self._shown(number)
        for group in self._optimiser.param_groups:
            group["lr"] = settings.rate_at(number)
        total = 0.0
        for x, target in zip(pictures.split(_AT_ONCE), targets.split(_AT_ONCE), strict=True):
            with convolutions():
                local = _rows(_maps(self.student, x, self._backbone.preprocessing))
                own = self._teacher_state is None
                loss = relational_loss(local, _rows(target), settings.temperature, own)
                share = len(x) / len(pictures)
                (loss * share).backward()
            total += loss.item() * share
        if not math.isfinite(total):
            raise UserError(f"the loss is no number any more in step {number + 1}: lower the rate")
        if settings.clip > 0:
            torch.nn.utils.clip_grad_norm_(self._parameters, settings.clip)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return total

    def learnt(self) -> Backbone:
        """A copy of the student as it is now, its weights blended with the teacher's."""
        learnt = self.student.state_dict()
        if self._teacher_state is None:
            return self.backbone(learnt)
        blend = self.settings.blend
        return self.backbone(
            {
                name: torch.lerp(before, learnt[name], blend)
                for name, before in self._teacher_state.items()
            }
        )

    def backbone(self, state: Mapping[str, Tensor]) -> Backbone:
        """A backbone like the student's, of the tensors in `state`, which are copied."""
        network = copy.deepcopy(self._backbone.network).cpu().eval().requires_grad_(False)
        network.load_state_dict(state)
        weights: dict[str, Tensor] = network.unfolded()  # type: ignore[operator]
        return dataclasses.replace(self._backbone, network=network, weights=weights)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, apart from its number."""
        learnt = {f"student.{name}": tensor for name, tensor in self.student.state_dict().items()}
        return learnt | optimiser_tensors(self._optimiser)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state()` returned; UserError where it is of another network."""
        try:
            self.student.load_state_dict(part_of(state, "student."))
            load_optimiser(self._optimiser, state)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"the state does not belong to this run: {error}") from error

    def _shown(self, number: int) -> tuple[Tensor, Tensor]:
        """The student's images in a step, and the teacher's targets for them."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, number])
        pictures, targets = [], []
        for kind, (pool, taught, odds, count, strength) in enumerate(self._kinds):
            scenes = rng.permutation(len(pool))[:count]
            rows = [rng.choice(pool.views[scene], p=odds[scene]) for scene in scenes]
            seeds = [[settings.seed, number, kind, place] for place in range(len(scenes))]
            x, y = moved(
                torch.from_numpy(pool.pictures[rows]).to(self._device),
                taught[scenes].to(self._device).float(),
                seeds,
                settings.moved,
            )
            seeds = [[*seed, 1] for seed in seeds]
            pictures.append(augment(x, seeds, strength, aligned=True))
            targets.append(functional.normalize(y, dim=1))
        # Shuffled, so that images of both kinds are compared with each other.
        order = torch.from_numpy(rng.permutation(sum(len(part) for part in pictures)))
        order = order.to(self._device)
        return torch.cat(pictures)[order], torch.cat(targets)[order]


@torch.no_grad()
def _targets(
    teacher: Backbone,
    scenes: Scenes,
    hardness: float,
    advance: Callable[[int], object],
    device: torch.device,
) -> tuple[Tensor, list[NDArray[np.float64] | None]]:
    """(N, C, h, w) of each scene, the mean over its clear views, in half precision; and for each
    the shares in which its views are to be shown, None for all alike. They stay in main memory."""
    targets, shares = [], []
    for views, clear in zip(scenes.views, scenes.clear, strict=True):
        seen = views if hardness else clear
        pictures = torch.from_numpy(scenes.pictures[seen]).to(device)
        maps = _maps(teacher.network, pictures, teacher.preprocessing)
        by_day = torch.from_numpy(np.isin(seen, clear)).to(device)
        target = functional.normalize(maps[by_day].sum(0), dim=0)
        targets.append(target.half().cpu())
        shares.append(view_shares(maps, target, hardness) if hardness else None)
        advance(1)
    return torch.stack(targets), shares


def _maps(network: nn.Module, pictures: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(B, C, h, w) unit local descriptors of (B, H, W, 3) uint8 images."""
    mean, std = (
        255 * torch.tensor(values, device=pictures.device)[:, None, None]
        for values in (preprocessing.mean, preprocessing.std)
    )
    x = (pictures.permute(0, 3, 1, 2).float() - mean) / std
    maps: Tensor = network(x.contiguous(memory_format=torch.channels_last))
    return functional.normalize(maps, dim=1)


def _rows(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B * h * w, C)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def crops(photographs: Sequence[Pixels], each: int, size: tuple[int, int], seed: int = 0) -> Scenes:
    """`each` parts of every (H, W, 3) uint8 photograph as scenes of their own, at `size` (w, h).

    A part has 30 to 100 % of the width, half of the parts are mirrored, and half pass through a
    thumbnail of a third of the size: photographs are often that small when they come.
    """
    width, height = size
    parts = []
    for number, photograph in enumerate(photographs):
        rng = np.random.default_rng([seed, number])
        whole = Image.fromarray(photograph)
        for _ in range(each):
            share = rng.uniform(0.3, 1.0)
            wide = min(whole.width, whole.height * width / height) * share
            tall = wide * height / width
            left, top = rng.uniform(0, whole.width - wide), rng.uniform(0, whole.height - tall)
            box = (left, top, left + wide, top + tall)
            small = rng.random() < 0.5
            first = (max(1, width // 3), max(1, height // 3)) if small else size
            part = whole.resize(first, Image.Resampling.BICUBIC, box, reducing_gap=3.0)
            part = part.resize(size, Image.Resampling.BICUBIC)
            parts.append(np.asarray(part)[:, ::-1] if rng.random() < 0.5 else np.asarray(part))
    rows = [np.array([row]) for row in range(len(parts))]
    pictures = np.stack(parts) if parts else np.empty((0, height, width, 3), np.uint8)
    return Scenes(np.ascontiguousarray(pictures), rows, rows)
