"""Rates that were measured: what an atlas remembers of its own runs, and a build of a few
photographs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vladmap.atlas import layout, storage
from vladmap.atlas.store import AtlasStore
from vladmap.console.quiet import hidden, set_quiet
from vladmap.photos.manifests.columns import MANIFEST
from vladmap.photos.manifests.rows import from_json
from vladmap.pipeline.collection import Listing
from vladmap.pipeline.ledgers import image_shards, paths_of, read_json
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.rates import EACH_IMAGE, EACH_NUMBER, EACH_PAIR, Rate, Rates
from vladmap.pipeline.run import RATE_OPTIONS, Run
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.stages.describe import DESCRIBE
from vladmap.pipeline.stages.ingest import INGEST
from vladmap.pipeline.stages.pair import PAIR
from vladmap.pipeline.stages.reconstruct import RECONSTRUCT
from vladmap.pipeline.stages.verify import FEATURES, VERIFY
from vladmap.schemas.rejects import DamagedFile, UserError

log = logging.getLogger("vladmap")

_LEAST_SECONDS = 1e-6
_ENOUGH_UNITS = 10
_SAMPLE = (4, 16)
"""Photographs of the two builds of a calibration: what the second takes longer is theirs."""

_CALIBRATED = ("ingest", "describe", "index", "pair", "verify")
"""A map of some sixteen photographs says nothing of one of a thousand."""


def rates_of_atlas(run: Run) -> Rates:
    """What each step last took, and what stands on disk; empty for an atlas without either.

    A step that was last run with another device, model or kind of features says nothing of this
    run, and is left out. The seconds of several workers are counted as those of one.
    """
    found = []
    now = {name: getattr(run.options, name) for name in RATE_OPTIONS}
    for step, said in run.timings().items():
        before = said.get("options")
        if not said["elements"] or (isinstance(before, dict) and not before.items() <= now.items()):
            continue
        units, size = said["elements"], None
        if step == RECONSTRUCT.title:
            # A run that kept or continued tiles says nothing of what mapping them takes.
            units = 0 if said["reused"] else _images_of_tiles(run)
            if not units:
                continue
            size = units / max(1, len(run.ledger(RECONSTRUCT)))
        seconds = said["seconds"] * said.get("workers", 1)
        found.append(Rate(step, max(_LEAST_SECONDS, seconds / units), size))
    return Rates("this atlas's last runs", tuple(found), _bytes_of(run), _most_of(run))


def _images_of_tiles(run: Run) -> int:
    """Images that all tiles hold, overlaps counted as often as they are mapped.

    None where a tile was continued.
    """
    found = 0
    for path in paths_of(run, RECONSTRUCT):
        with contextlib.suppress(DamagedFile, OSError):
            report = read_json(run, path)
            if "mapped_at_once" in report.get("grown", {}):
                return 0
            found += int(report.get("images", 0))
    return found


def dimension_of(run: Run) -> int:
    """Numbers of the descriptors that the atlas has; 0 where it has none."""
    for path in paths_of(run, DESCRIBE):
        with contextlib.suppress(OSError):
            metadata = storage.read_schema(run.atlas.path(path)).metadata or {}
            return int(metadata.get(b"vladmap:dimension", 0))
    return 0


def _bytes_of(run: Run) -> dict[str, float]:
    """Bytes an image, a pair, a number of all descriptors, of each folder of the atlas."""
    images = sum(entry.counts["images"] for entry in image_shards(run).values())
    pairs = sum(entry.file.rows for entry in run.ledger(PAIR).values())
    units = {
        **dict.fromkeys(EACH_IMAGE, images),
        **dict.fromkeys(EACH_PAIR, pairs),
        **dict.fromkeys(EACH_NUMBER, images * dimension_of(run)),
    }
    sizes = bytes_of_folders(run)
    return {name: sizes[name] / units[name] for name in units if name in sizes and units[name]}


def bytes_of_folders(run: Run) -> dict[str, float]:
    """Bytes of each folder of the atlas that the ledger knows."""
    sizes: dict[str, float] = defaultdict(float)
    for ledger in run.atlas.stage_names():
        for entry in run.atlas.ledger(ledger).values():
            for file in entry.files:
                sizes[layout.top(file.path)] += file.bytes
    return dict(sizes)


def _most_of(run: Run) -> dict[str, float]:
    """Bytes an image or a pair in the shard that has most of them, of folders with several."""
    images = {shard: entry.counts["images"] for shard, entry in image_shards(run).items()}
    pairs = {shard: entry.file.rows for shard, entry in run.ledger(PAIR).items()}
    found = {}
    for folder, step, units in (
        (layout.IMAGES, INGEST, images),
        (layout.FEATURES, FEATURES, images),
        (layout.PAIRS, PAIR, pairs),
        (layout.TWO_VIEWS, VERIFY, pairs),
    ):
        # Of a few a shard's own bytes are most.
        each = [
            sum(file.bytes for file in entry.files if layout.top(file.path) == folder) / count
            for shard, entry in run.ledger(step).items()
            if (count := units.get(shard, 0)) >= _ENOUGH_UNITS
        ]
        if len(each) > 1:
            found[folder] = max(each)
    return found


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What a build of a few photographs of a collection told. `ended` says why it ended early."""

    rates: Rates
    dimension: int = 0
    ended: str = ""


def calibrate(options: BuildOptions, listing: Listing, names: Sequence[str]) -> Calibration:
    """Build atlases of 4 and of 16 photographs of the collection in a folder that is then deleted.

    The stages of `names` up to `verify` run with the user's options, in this process. What the
    larger build takes longer than the smaller one is the time of its further photographs: what a
    pipeline takes to start, and a model to load, falls away. The photographs follow each other in
    the middle of the listing, so that there are pairs to verify.
    """
    files = listing.table.filter(pc.equal(listing.table["kind"], "file"))
    wanted = [name for name in STAGES if name in _CALIBRATED and name in names]
    sizes = sorted({min(size, files.num_rows) for size in _SAMPLE})
    if not wanted or sizes[-1] == 0:
        return Calibration(Rates("a calibration"), ended="there is nothing to calibrate with")
    log.info("calibrating: %d photographs go through %s", sizes[-1], ", ".join(wanted))
    with tempfile.TemporaryDirectory(prefix="vladmap-calibration-") as folder, _silence():
        runs: list[Run] = []
        ended = ""
        for size in sizes:
            run, ended = _build_some(options, files, size, wanted, Path(folder, str(size)))
            runs.append(run)
            if ended:
                break
        small, large = runs[0], runs[-1]
        rates = _slopes(small, large)
        source = f"{large.results[0].elements if large.results else 0} of its photographs, here"
        return Calibration(Rates(source, rates, _bytes_of(large)), dimension_of(large), ended=ended)


def _build_some(
    options: BuildOptions, files: pa.Table, size: int, names: Sequence[str], folder: Path
) -> tuple[Run, str]:
    """A run over `size` photographs, and why it ended early, if it did."""
    from vladmap.pipeline.build import run_stages

    folder.mkdir()
    start = (files.num_rows - size) // 2
    rows = [
        {**from_json(row["overrides"] or "{}"), "uri": row["uri"]}
        for row in files.slice(start, size).to_pylist()
    ]
    manifest = folder / "sample.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST), manifest)
    options = dataclasses.replace(
        options,
        images=str(manifest),
        atlas=str(folder / "atlas"),
        max_reject_rate=1.0,
        shard_images=size,
    )
    atlas = AtlasStore.open(options.atlas, create=True)
    run = Run(atlas, options)
    for name in names:
        try:
            run.results += run_stages(atlas, options, (), [name]).results
        except UserError as error:
            return run, f"{name}: {error}"
    return run, ""


def _slopes(small: Run, large: Run) -> tuple[Rate, ...]:
    """Seconds a unit of each step: what the larger run takes longer, for what it has more.

    Where that is no more than noise, all that the larger run took.
    """
    before = {result.stage: result for result in small.results}
    found = []
    for result in large.results:
        first = before.get(result.stage)
        if not result.elements:
            continue
        each = result.seconds / result.elements
        if first is not None and result.elements > first.elements:
            more = (result.seconds - first.seconds) / (result.elements - first.elements)
            each = min(each, more) if more > 0 else each
        found.append(Rate(result.stage, max(_LEAST_SECONDS, each)))
    return tuple(found)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Neither bars nor what stages say of the sample."""
    quiet, level = hidden() is True, log.level
    set_quiet(True)
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        set_quiet(quiet)
        log.setLevel(level)
