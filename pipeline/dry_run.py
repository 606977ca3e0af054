"""`--dry-run`: what a run would do and what it would take, in words.

Nothing is written, but for the temporary folder of a calibration, which is deleted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vladmap.atlas import layout, storage
from vladmap.atlas.store import AtlasStore
from vladmap.console.numbers import human_bytes
from vladmap.console.progress import counted
from vladmap.features.registry import feature_kind, matching_device
from vladmap.pipeline import estimate, launch
from vladmap.pipeline.collection import Listing, list_collection
from vladmap.pipeline.ledgers import image_shards
from vladmap.pipeline.measured import (
    bytes_of_folders,
    calibrate,
    dimension_of,
    rates_of_atlas,
)
from vladmap.pipeline.options import BuildOptions, reduced_to
from vladmap.pipeline.planning import plan
from vladmap.pipeline.rates import DEFAULT, Rates, read_rates
from vladmap.pipeline.readiness import ready
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.stages.describe import DESCRIBE, VOCABULARY
from vladmap.pipeline.stages.index import INDEX, PARTS, PLACES, TRAIN
from vladmap.pipeline.stages.pair import PAIR
from vladmap.pipeline.stages.verify import CAMERAS, FEATURES, VERIFY
from vladmap.pipeline.staleness import images_to_do
from vladmap.pipeline.vocabulary import sample_size
from vladmap.schemas.rejects import DamagedFile
from vladmap.weights.devices import CPU

_ENOUGH_IMAGES = 200
"""Of fewer photographs each has fewer neighbours than in a large collection."""


@dataclasses.dataclass(frozen=True)
class Costing:
    """How a dry run is to count: `rates` names a file or rates that ship, `workers` 0 stands for
    as many as Beam's options say; without `calibration` nothing is built to measure this machine.
    """

    rates: str = ""
    workers: int = 0
    calibration: bool = True
    prices: estimate.Prices = dataclasses.field(default_factory=estimate.Prices)


@dataclasses.dataclass(frozen=True)
class DryRun:
    """Lines for people, and the same in numbers for `--json`."""

    lines: list[str]
    figures: dict[str, Any]


def describe_work(
    options: BuildOptions,
    names: Sequence[str],
    beam_words: Sequence[str] = (),
    costing: Costing | None = None,
) -> DryRun:
    """What the named stages would do to the photographs, and take. Raises UserError for rates that
    cannot be read and a collection that cannot be listed."""
    costing = costing or Costing()
    stages = [STAGES[name] for name in names]
    reads_collection = any(not stage.needs for stage in stages)
    atlas = AtlasStore.open(options.atlas, create=reads_collection, write=False)
    run = Run(atlas, options, beam_words)
    listing = list_collection(options.images) if reads_collection else None
    lines, images, fresh = _collection(run, listing)
    known, dimension, notes = _rates(run, listing, names, costing)
    amounts = _amounts(run, images, fresh, listing, dimension)
    for stage in stages:
        if stage.estimate is not None:
            lines += stage.estimate(run, amounts.images)
    workers = costing.workers or launch.worker_count(beam_words)
    found = estimate.costs(stages, options, amounts, known, workers, _on_gpu(options))
    sizes = estimate.bytes_on_disk(amounts, known)
    most = estimate.most_on_disk(amounts, known)
    paid = estimate.money(found, sum(sizes.values()), costing.prices)
    checks = ready(options, beam_words, max(0.0, sum(most.values()) - _written(run)))
    lines += [*_table(found, workers, known), *notes, *_totals(found, sizes, most, paid, workers)]
    lines += [
        f"{'check' if check.good else 'WARNING':<12}{check.about}: {check.text}" for check in checks
    ]
    lines.append(f"stages      {', '.join(names)} -> {atlas.root}")
    lines.append("nothing was written: leave out --dry-run to begin")
    figures = {
        "images": images,
        "workers": workers,
        "steps": [dataclasses.asdict(cost) for cost in found],
        "bytes": sizes,
        "most_bytes": most,
        "money": paid,
        "checks": [dataclasses.asdict(check) for check in checks],
        "rates": _joined(known).to_json(),
    }
    return DryRun(lines, figures)


def _collection(run: Run, listing: Listing | None) -> tuple[list[str], int, tuple[int, int]]:
    """Lines on the photographs, how many there are, how many of them are to be read, and how many
    that were read are no more as they were."""
    if listing is None:
        images = sum(entry.counts["images"] for entry in image_shards(run).values())
        return [f"atlas       {run.atlas.root}: {images} images"], images, (0, 0)
    planned = plan(run.atlas, listing, run.options.shard_images, write=False)
    images = listing.table.num_rows
    gone = planned.dead.num_rows - _known_dead(run, planned.dead)
    lines = [
        f"collection  {listing.root}: {images} images, {human_bytes(listing.bytes)}",
        *(f"note        {note}" for note in listing.notes),
        f"to read     {planned.fresh} images new or changed, {images - planned.fresh} known",
    ]
    if gone:
        lines.append(
            f"gone        {gone} are changed or no more: the shards they lay in are redone"
        )
    return lines, images, (planned.fresh, gone)


def _known_dead(run: Run, dead: pa.Table) -> int:
    """How many of the photographs that are gone the last run knew to be."""
    try:
        known = storage.read_table(run.atlas.path(layout.DEAD), dead.column_names)
    except (OSError, DamagedFile):
        return 0
    rows = [
        set(map(tuple, zip(*table.to_pydict().values(), strict=True))) for table in (known, dead)
    ]
    return len(rows[0] & rows[1])


def _rates(
    run: Run, listing: Listing | None, names: Sequence[str], costing: Costing
) -> tuple[list[Rates], int, list[str]]:
    """Rates, those that count most first, the numbers of a descriptor, and what is to be said."""
    known, notes = [], []
    if costing.rates:
        known.append(read_rates(costing.rates, run.options))
    own = rates_of_atlas(run)
    dimension = dimension_of(run)
    if own.rates:
        known.append(own)
    elif costing.calibration and not costing.rates and listing is not None:
        told = calibrate(run.options, listing, names)
        known.append(told.rates)
        dimension = told.dimension
        if told.ended:
            notes.append(f"note        the calibration ended early: {told.ended}")
    known.append(read_rates(DEFAULT, run.options))
    # The numbers that were asked for go first: a calibration has too few photographs to learn more
    # dimensions than photographs.
    return known, reduced_to(run.options) or run.options.whiten or dimension, notes


def _amounts(
    run: Run,
    images: int,
    fresh: tuple[int, int],
    listing: Listing | None,
    dimension: int,
) -> estimate.Amounts:
    options = run.options
    size = listing.bytes / max(1, images) if listing is not None else 0.0
    paired = sum(entry.file.rows for entry in run.ledger(PAIR).values())
    there = sum(entry.counts["images"] for entry in image_shards(run).values())
    left = images_to_do(run, images, *fresh)
    usable = min(images, there + fresh[0])
    most = min(options.near + options.everywhere + options.following, (images - 1) / 2)
    return estimate.Amounts(
        images=usable,
        bytes_each=size,
        pairs_each=paired / there if paired and there >= _ENOUGH_IMAGES else most,
        cameras=max(1, len(run.ledger(CAMERAS))),
        dimension=dimension,
        fresh=left,
        at_most={"vocabulary": sample_size(options)},
        there=there,
        written=bytes_of_folders(run),
    )


def _on_gpu(options: BuildOptions) -> set[str]:
    """Titles of the steps that run on the GPU that `--device` asks for."""
    asked = options.device != CPU
    devices = {
        VOCABULARY: options.device,
        DESCRIBE: options.device,
        TRAIN: options.device,
        PARTS: options.device,
        PLACES: options.device,
        INDEX: options.device,
        PAIR: options.device,
        FEATURES: feature_kind(options.features).device(options.device),
        VERIFY: matching_device(options.matcher, options.device),
    }
    return {step.title for step, device in devices.items() if asked and device != CPU}


def _written(run: Run) -> float:
    """Bytes that the ledger knows of already."""
    return float(
        sum(
            file.bytes
            for name in run.atlas.stage_names()
            for entry in run.atlas.ledger(name).values()
            for file in entry.files
        )
    )


def _table(found: Sequence[estimate.Cost], workers: int, known: Sequence[Rates]) -> list[str]:
    """One line a step: its work, the time of one worker and of all, and the number of whose rate
    it is; the sources stand above."""
    numbers = {rates.source: f"[{number}]" for number, rates in enumerate(known, start=1)}
    used = {cost.source for cost in found}
    lines = [
        f"{'rates':<12}{number} {source}" for source, number in numbers.items() if source in used
    ]
    all_workers = f"{workers} workers" if workers > 1 else ""
    lines.append(f"{'step':<14}{'work':>20}{'one worker':>13}{all_workers:>13}  rate".rstrip())
    for cost in found:
        work = counted(cost.units, cost.unit)
        one = "not known" if cost.seconds is None else duration(cost.seconds)
        both = ""
        if workers > 1:
            both = "not known" if cost.elapsed_s is None else duration(cost.elapsed_s)
        whose = numbers.get(cost.source, "")
        lines.append(f"{cost.step:<14}{work:>20}{one:>13}{both:>13}  {whose}".rstrip())
    return lines


def _totals(
    found: Sequence[estimate.Cost],
    sizes: dict[str, float],
    most_bytes: dict[str, float],
    paid: dict[str, float],
    workers: int,
) -> list[str]:
    one = sum(cost.seconds or 0.0 for cost in found)
    elapsed = sum(cost.elapsed_s or 0.0 for cost in found)
    lines = [f"time        {duration(one)} on one worker"]
    if workers > 1:
        lines[0] += f", {duration(elapsed)} on {workers}"
    unknown = [cost.step for cost in found if cost.seconds is None]
    if unknown:
        lines.append(f"note        without {', '.join(unknown)}: no rate is known; see --rates")
    most = max((cost.busy for cost in found), default=1)
    if workers > most:
        lines.append(f"workers     no step keeps more than {most} busy: --shard-images cuts more")
    alone = sum(cost.seconds or 0.0 for cost in found if cost.busy == 1)
    if workers > 1 and alone:
        lines.append(f"workers     {duration(alone)} of it is work of one worker alone")
    whole = human_bytes(sum(sizes.values()))
    parts = sorted(sizes.items(), key=lambda item: -item[1])[:4]
    shown = ", ".join(f"{name} {human_bytes(size)}" for name, size in parts)
    most_of_all = human_bytes(sum(most_bytes.values()))
    bound = f", at most some {most_of_all}" if most_of_all != whole else ""
    lines.append(f"bytes       {whole} in the whole atlas{bound}: {shown}")
    if paid:
        each = ", ".join(f"{name} {amount:,.2f}" for name, amount in paid.items())
        lines.append(f"money       {sum(paid.values()):,.2f} at the prices given: {each}")
    else:
        lines.append("money       give --worker-price, --gpu-price, --storage-price to count it")
    return lines


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as people read them."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 or seconds == 0 else "under 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _joined(known: Sequence[Rates]) -> Rates:
    """The rates that count, as one file: `--rates` reads what `--json` says under `rates`."""
    steps: dict[str, tuple[Any, ...]] = {}
    sizes: dict[str, float] = {}
    most: dict[str, float] = {}
    for rates in reversed(known):
        for step in {rate.step for rate in rates.rates}:
            steps[step] = tuple(rates.of(step))
        # A bound is of the same source as the mean that it is a bound of.
        most = {name: size for name, size in most.items() if name not in rates.bytes}
        sizes |= rates.bytes
        most |= rates.most
    return Rates(
        "; ".join(rates.source for rates in known),
        tuple(rate for _, found in sorted(steps.items()) for rate in found),
        dict(sorted(sizes.items())),
        dict(sorted(most.items())),
        max(rates.start_s for rates in known),
    )
