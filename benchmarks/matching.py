"""The stage verify as a share of bare loops over the same library calls, in one run.

    python -m benchmarks.matching [--images N] [--rounds N]

- images a second of extracting SIFT, beside processes that only decode and extract;
- pairs a second of verifying, beside threads that only call the matcher and COLMAP's estimator on
  features in memory;
- what each half of that takes a pair, and the bare product of the descriptors, on one thread.

The photographs are rendered, of 640 x 480. The bare loops use as many processes and threads as the
stage does.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.throughput import THREADS, run_of, timed, write_photos
from vladmap.atlas import storage
from vladmap.atlas.task_inputs import read_cameras
from vladmap.features.base import LocalFeatureExtractor, LocalFeatures, Matches
from vladmap.features.registry import feature_kind, load_extractor
from vladmap.features.table import read_features
from vladmap.mapping.camera import Camera
from vladmap.mapping.camera_keys import IMAGE_COLUMNS, camera_keys
from vladmap.mapping.two_view import verify
from vladmap.models.memory import one_thread_a_call
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.processes import WorkerPool
from vladmap.pipeline.ledgers import image_shards, paths_of
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.stages.pair import PAIR
from vladmap.pipeline.stages.verify import CAMERAS, FEATURES
from vladmap.schemas.records import NO_CELL, Task

BEFORE = ("ingest", "describe", "index", "pair")
_ON_ONE_THREAD = 100
"""Pairs whose halves are timed."""

Pair = tuple[str, str]


def bare_extract(path: Path) -> int:
    """Decode a photograph and extract its features; in a process of its own."""
    return len(_extractor().extract(decode_rgb(path.read_bytes())))


@functools.cache
def _extractor() -> LocalFeatureExtractor:
    return load_extractor("sift")


class Inputs:
    """What the stage verify reads of an atlas, in memory."""

    def __init__(self, run: Run) -> None:
        def tables(paths: list[str]) -> list[pa.Table]:
            return [storage.read_table(run.atlas.path(path)) for path in paths]

        self.features: dict[str, LocalFeatures] = {}
        for table in tables(paths_of(run, FEATURES)):
            self.features |= read_features(table)
        reads = tuple(("cameras", path) for path in paths_of(run, CAMERAS))
        chosen = read_cameras(run.atlas.root, Task("", NO_CELL, "", "", reads))
        self.cameras: dict[str, Camera] = {}
        for table in tables([entry.file.path for entry in image_shards(run).values()]):
            keys = camera_keys(table.select(IMAGE_COLUMNS))
            for image, key in zip(table["image_id"].to_pylist(), keys, strict=True):
                self.cameras[image] = chosen[key]
        self.pairs: list[Pair] = [
            pair
            for table in tables(paths_of(run, PAIR))
            for pair in zip(
                table["image_id_a"].to_pylist(), table["image_id_b"].to_pylist(), strict=True
            )
        ]
        self.matcher = feature_kind("sift").nearest

    def match(self, pair: Pair) -> Matches:
        return self.matcher.match(*(self.features[image] for image in pair))

    def geometry(self, pair: Pair, matches: Matches) -> bool:
        a, b = pair
        return verify(
            a, b, self.features[a], self.features[b], matches, self.cameras[a], self.cameras[b]
        ).verified  # fmt: skip

    def product(self, pair: Pair) -> None:
        a, b = (self.features[image].descriptors.astype(np.float32) for image in pair)
        a @ b.T

    def bare(self) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda pair: self.geometry(pair, self.match(pair)), self.pairs))


def milliseconds(work: Callable[[], object], count: int) -> float:
    """Of processor time, for each of `count`; other work on the machine changes it little."""
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started) / count


def halves(inputs: Inputs) -> str:
    """What a pair takes on one thread, in words."""
    step = max(1, len(inputs.pairs) // _ON_ONE_THREAD)
    pairs = inputs.pairs[::step]
    matches = [inputs.match(pair) for pair in pairs]
    product = milliseconds(lambda: [inputs.product(pair) for pair in pairs], len(pairs))
    match = milliseconds(lambda: [inputs.match(pair) for pair in pairs], len(pairs))
    geometry = milliseconds(
        lambda: [inputs.geometry(*each) for each in zip(pairs, matches, strict=True)], len(pairs)
    )
    features = sum(map(len, inputs.features.values())) / len(inputs.features)
    return (
        f"a pair of {features:,.0f} features each takes {match:.1f} ms to match ({product:.1f} the "
        f"bare product in float32), {geometry:.1f} ms its geometry, on one core"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matching", description=__doc__)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    one_thread_a_call()
    rates: dict[str, list[tuple[float, float]]] = {"features": [], "verify": []}
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photos(Path(folder, "photos"), options.images)
        run = run_of(Path(folder, "photos"), Path(folder, "atlas"))
        for name in BEFORE:
            STAGES[name].work(run)
        for _ in range(options.rounds):
            for ledger in STAGES["verify"].ledger_names(run.options):
                run.atlas.forget(ledger, list(run.atlas.ledger(ledger)))
            run.results.clear()
            STAGES["verify"].work(run)
            ours = {each.stage: each.elements / each.seconds for each in run.results}
            pool = WorkerPool(THREADS)
            list(pool.map(bare_extract, photos[:THREADS]))  # starts the processes
            bare = {
                "features": len(photos)
                / timed(lambda pool=pool: list(pool.map(bare_extract, photos)))
            }
            pool.close()
            inputs = Inputs(run)
            bare["verify"] = len(inputs.pairs) / timed(inputs.bare)
            for name, found in rates.items():
                found.append((ours[name], bare[name]))
        words = halves(inputs)
    units = {"features": "images/s", "verify": "pairs/s"}
    for name, found in rates.items():
        ours_rate, bare_rate = (statistics.median(each) for each in zip(*found, strict=True))
        share = statistics.median(own / loop for own, loop in found)
        print(
            f"{name:<9} {ours_rate:7.1f} {units[name]}, bare loop {bare_rate:7.1f} {units[name]}, "
            f"share {share:.2f} on {THREADS} cores"
        )
    print(words)


if __name__ == "__main__":
    main()
