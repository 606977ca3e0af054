"""Hours, bytes and money of a build, worked out from rates: plain functions of plain numbers.

Each step is so many units of work, cut into so many tasks; a worker takes the seconds that a rate
says for a unit, and workers beside each other take whole tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from vladmap.mapping.tiles import expected_tiles
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.rates import (
    EACH_IMAGE,
    EACH_NUMBER,
    EACH_PAIR,
    MADE_BY,
    Rates,
    at_size,
)
from vladmap.pipeline.stage import Stage, Step
from vladmap.pipeline.stages import STAGES

_IMAGES, _TILES, _PAIRS, _CAMERAS, _INDICES = "images", "tiles", "pairs", "cameras", "indices"
_VECTORS = "vectors"


@dataclass(frozen=True)
class Amounts:
    """What there is to do: photographs in all, and those that each step has yet to do.

    `fresh` are by the step's title; a step that is not named has all images to do. `at_most` bounds
    a step that looks at a sample. `bytes_each` is the mean size of a photograph's file,
    `pairs_each` the candidate pairs of an image, `dimension` the numbers of a descriptor (0: not
    known yet). `there` are the photographs that the atlas has, `written` the bytes of each of its
    folders.
    """

    images: int
    bytes_each: float
    pairs_each: float
    cameras: int = 1
    dimension: int = 0
    fresh: Mapping[str, int] | None = None
    at_most: Mapping[str, int] | None = None
    there: int = 0
    written: Mapping[str, float] = field(default_factory=dict)

    def to_do(self, step: Step) -> int:
        """Images that a step has yet to do, or those of the sample that it looks at."""
        fresh = self.left(step.title)
        return min(fresh, (self.at_most or {}).get(step.title, fresh))

    def left(self, title: str) -> int:
        """Images that a step has yet to do. What is one task is done again when any is new."""
        steps = (step for stage in STAGES.values() for step in stage.steps)
        step = next(step for step in steps if step.title == title)
        fresh = self.images if self.fresh is None else self.fresh.get(title, self.images)
        if step.alone or step.unit == _TILES:
            return self.images if fresh else 0
        return fresh


@dataclass(frozen=True)
class Cost:
    """One step: its work, and what it takes one worker, and `workers` of them beside each other.

    `seconds` and `elapsed_s` are None where no rate is known. `source` says whose rate it is.
    `busy` are the workers that have something to do; `gpu` says that they need a GPU.
    """

    stage: str
    step: str
    units: int
    unit: str
    seconds: float | None
    elapsed_s: float | None
    busy: int
    gpu: bool
    source: str


@dataclass(frozen=True)
class Prices:
    """What the user pays for an hour of a worker, of one with a GPU, and a GB for a month."""

    worker_hour: float | None = None
    gpu_hour: float | None = None
    gb_month: float | None = None


def costs(
    stages: Sequence[Stage],
    options: BuildOptions,
    amounts: Amounts,
    known: Sequence[Rates],
    workers: int = 1,
    on_gpu: Collection[str] = (),
) -> list[Cost]:
    """What each step of the stages takes; the first of `known` that has a rate for it counts.

    `on_gpu` are the titles of the steps whose workers have a GPU. A step of the driver alone, which
    is quick, is left out.
    """
    each_start_s = max((rates.start_s for rates in known), default=0.0)
    found = []
    for stage in stages:
        for step in stage.steps:
            work = _work(step, options, amounts)
            if work is None or not step.applies(options):
                continue
            units, unit, size, tasks, largest = work
            light = step.is_light(amounts.to_do(step)) and step.title not in on_gpu
            start_s = 0.0 if light else each_start_s
            each, source = seconds_each(step.title, size, known)
            busy = min(workers, tasks)
            seconds = elapsed = 0.0 if units == 0 else None
            if each is not None and units:
                seconds = units * each + start_s
                # Some worker does as many tasks as there are rounds, the last may be a short one.
                elapsed = start_s + min(units, math.ceil(tasks / busy) * largest) * each
            found.append(
                Cost(
                    stage.name,
                    step.title,
                    units,
                    unit,
                    seconds,
                    elapsed,
                    busy,
                    step.title in on_gpu,
                    source,
                )
            )
    return found


def _work(
    step: Step, options: BuildOptions, amounts: Amounts
) -> tuple[int, str, float, int, float] | None:
    """Units, their name, the size that the rate depends on, the tasks, and the units of a full one.

    Shards are full but for the last.
    """
    images = amounts.to_do(step)
    shards = 1 if step.alone else max(1, math.ceil(images / options.shard_images))
    full = float(images if step.alone else min(images, options.shard_images))
    if step.unit in (_IMAGES, _VECTORS):
        return images, step.unit, amounts.bytes_each, shards, full
    if step.unit == _PAIRS:
        pairs = round(images * amounts.pairs_each)
        return pairs, _PAIRS, amounts.bytes_each, shards, full * amounts.pairs_each
    if step.unit == _TILES:
        tiles, each = expected_tiles(images, options.tile_images)
        return tiles * each, _IMAGES, float(each), max(1, tiles), float(each)
    if step.unit == _CAMERAS:
        cameras = amounts.cameras if images else 0
        return cameras, _CAMERAS, amounts.bytes_each, max(1, cameras), 1.0
    return (min(1, images), _INDICES, 0.0, 1, 1.0) if step.unit == _INDICES else None


def seconds_each(step: str, size: float, known: Sequence[Rates]) -> tuple[float | None, str]:
    """Seconds a unit of a step, and whose rate it is; None where nobody has one.

    A rate that was measured at one size alone says how fast the machine is, and a later source that
    has several how the size changes it.
    """
    for number, rates in enumerate(known):
        points = rates.of(step)
        if not points:
            continue
        only = points[0]
        curve = next(
            (others for later in known[number + 1 :] if len(others := later.of(step)) > 1), None
        )
        if len(points) == 1 and only.size and curve and all(point.size for point in curve):
            return only.seconds * at_size(curve, size) / at_size(curve, only.size), rates.source
        return at_size(points, size), rates.source
    return None, ""


def bytes_on_disk(amounts: Amounts, known: Sequence[Rates]) -> dict[str, float]:
    """Bytes of each folder of the whole atlas; those that nothing is known of are left out.

    What stands and is not to be made anew counts as it is, the rest by what an image, a pair or a
    number of a descriptor takes on average. That of descriptors is left out while the numbers of
    one are not known.
    """
    return _on_disk(amounts, known, lambda rates, folder: rates.bytes[folder])


def most_on_disk(amounts: Amounts, known: Sequence[Rates]) -> dict[str, float]:
    """The same, were what is to be made as large as in the shard that had most of it."""

    def largest(rates: Rates, folder: str) -> float:
        return max(rates.bytes[folder], rates.most.get(folder, 0.0))

    return _on_disk(amounts, known, largest)


def _on_disk(
    amounts: Amounts, known: Sequence[Rates], size_of: Callable[[Rates, str], float]
) -> dict[str, float]:
    units = {
        **dict.fromkeys(EACH_IMAGE, 1.0),
        **dict.fromkeys(EACH_PAIR, amounts.pairs_each),
        **dict.fromkeys(EACH_NUMBER, float(amounts.dimension)),
    }
    found = {}
    for folder, an_image in units.items():
        left = amounts.left(MADE_BY[folder])
        stands = amounts.images - left if amounts.there else 0
        size = amounts.written.get(folder, 0.0) * stands / max(1, amounts.there)
        source = next((rates for rates in known if folder in rates.bytes), None)
        if source is not None:
            size += size_of(source, folder) * an_image * left
        if size:
            found[folder] = size
    return found


def money(found: Sequence[Cost], stored: float, prices: Prices) -> dict[str, float]:
    """What workers, workers with a GPU and a month of `stored` bytes cost, as far as priced.

    A worker is paid for as long as its step takes, also while it waits for the step's last task.
    """
    hours = {False: 0.0, True: 0.0}
    for cost in found:
        hours[cost.gpu] += cost.busy * (cost.elapsed_s or 0.0) / 3600
    priced = {
        "workers": (hours[False], prices.worker_hour),
        "workers with a GPU": (hours[True], prices.gpu_hour),
        "storage for a month": (stored / 1e9, prices.gb_month),
    }
    return {
        name: amount * price
        for name, (amount, price) in priced.items()
        if price is not None and amount
    }
