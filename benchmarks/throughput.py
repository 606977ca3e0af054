"""Images a second of ingest and describe as a share of the bare loop over the same library calls.

    python -m benchmarks.throughput [--images N] [--rounds N]

Both are timed in turn in one process on rendered photographs; the share is the median over rounds.
The bare loops use as many threads as the stages do. What a stage adds is Beam, checks, hashing,
Parquet, the ledger and reading back what was written.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from models import load_model
from models.memory import one_thread_a_call
from photos.decode import decode_rgb, inspect
from pipeline import stages
from pipeline.atlas import Atlas
from pipeline.options import BuildOptions
from pipeline.run import Run
from simulation.sample import write_sample

THREADS = os.cpu_count() or 1


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def bare_ingest(photos: list[Path]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda path: inspect(path.read_bytes()), photos))


def bare_describe(photos: list[Path], weights: Path, batch: int = 16) -> None:
    one_thread_a_call()
    model = load_model("netvlad-lite", checkpoint=weights)

    def describe(chosen: list[Path]) -> None:
        model.describe(
            [decode_rgb(path.read_bytes(), target=model.input_long_side) for path in chosen]
        )

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(describe, [photos[at : at + batch] for at in range(0, len(photos), batch)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    shares: dict[str, list[float]] = {"ingest": [], "describe": []}
    rates: dict[str, list[tuple[float, float]]] = {"ingest": [], "describe": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_sample(root / "city", images=options.images, seed=0)
        photos = sorted((root / "city" / "images").rglob("*.jpg"))
        for number in range(options.rounds + 1):
            atlas = root / f"atlas{number}"
            settings = BuildOptions(images=str(root / "city" / "images"), atlas=str(atlas))
            run = Run(Atlas.open(str(atlas), create=True), settings)
            stages.ingest(run)
            stages.describe(run)
            ours = {result.stage: result.seconds for result in run.results}
            weights = atlas / "index" / "netvlad-lite" / "model.safetensors"
            bare = {
                "ingest": timed(lambda: bare_ingest(photos)),
                "describe": timed(lambda weights=weights: bare_describe(photos, weights)),
            }
            if number == 0:
                continue  # the first round warms caches and imports
            for stage in shares:
                shares[stage].append(bare[stage] / ours[stage])
                rates[stage].append((len(photos) / ours[stage], len(photos) / bare[stage]))
    for stage in shares:
        ours_rate, bare_rate = (
            statistics.median(column) for column in zip(*rates[stage], strict=True)
        )
        print(
            f"{stage:<9} {ours_rate:7.1f} images/s, bare loop {bare_rate:7.1f} images/s, "
            f"share {statistics.median(shares[stage]):.2f} (aim 0.90) on {THREADS} cores"
        )


if __name__ == "__main__":
    main()
