"""Settings of training and of distillation. It imports nothing slow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vladmap.evaluation.settings import SetSettings
from vladmap.models.training.recipe import Distillation, Recipe


@dataclass(frozen=True)
class TrainingData:
    """The photographs to learn from, and those to stop by.

    `sources` are read as `layout`, `split`, `since` and `last_share` say (see SetSettings).
    Validated is on `validate_split` of `validate`; where that is None, of the first source, or on
    areas held out of all with `validate_share` of the queries. `frames_tolerance` is for
    frame-aligned folders that validate. `threads` decode, and `memory_gb` of pixels are kept.
    """

    sources: tuple[Path, ...]
    layout: str = "auto"
    split: str = "train"
    since: str | None = None
    last_share: float = 0.2
    validate: Path | None = None
    validate_split: str = "val"
    frames_tolerance: int = 0
    validate_share: float = 0.15
    threads: int = 8
    memory_gb: float = 2.0

    def set_of(self, source: Path, layout: str, split: str) -> SetSettings:
        """The settings by which one source is read."""
        return SetSettings(
            source,
            layout,
            split,
            frames_tolerance=self.frames_tolerance,
            since=self.since,
            last_share=self.last_share,
        )


@dataclass(frozen=True)
class TrainingSettings:
    """A run of `vladmap train` in the folder `output`.

    It starts from the whole model in `init`, or from a `backbone` (LITE, GHOST or a file) and an
    `aggregation` with `clusters` (None: as many as it is published with), projected to `project`
    numbers. `tuned_blocks` of the backbone learn, None for what suits it. `keep_gb` of what frozen
    blocks compute is kept. `options` are those of the command line, for the run's record.
    """

    data: TrainingData
    recipe: Recipe
    output: Path
    backbone: str
    aggregation: str
    resume: bool = False
    init: Path | None = None
    clusters: int | None = None
    project: int | None = None
    tuned_blocks: int | None = None
    device: str = "cpu"
    precision: str | None = None
    keep_gb: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DistillationSettings:
    """A run of `vladmap distil` in the folder `output`.

    The teacher in `init` (None: the backbone by ImageNet) looks at the conditions `clear` of the
    rendered `worlds`, and at `crops` of each of the `photographs`, all at `size` (width, height).
    `student` is GHOST, a file, or None for a copy of the teacher. It is validated on `validate`
    every `check` steps, and ends in `clusters` words and `project` numbers. Networks run on
    `device`. `options` are those of the command line, for the run's record.
    """

    recipe: Distillation
    output: Path
    size: tuple[int, int]
    clear: tuple[str, ...]
    worlds: Path | None = None
    photographs: tuple[Path, ...] = ()
    resume: bool = False
    init: Path | None = None
    student: str | None = None
    crops: int = 20
    validate: Path | None = None
    frames_tolerance: int = 0
    check: int = 200
    clusters: int = 32
    project: int = 960
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)
