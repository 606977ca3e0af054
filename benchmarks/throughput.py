"""Images a second of ingest and describe as a share of the bare loop over the same library calls.

    python -m benchmarks.throughput [--ingest N] [--describe N] [--rounds N]

Both are timed in turn in one process; the share is the median over rounds. The photographs are 120
rendered ones and copies of them that differ in a trailing byte, so that none is a duplicate. The
bare loops use as many threads as the stages do. What a stage adds is the listing, Beam, checks,
hashing, sequences, cells, Parquet, the ledger and reading back what was written: much of it the
same for ten images and a thousand.
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

from vladmap.atlas.store import AtlasStore
from vladmap.models import load_model
from vladmap.models.memory import one_thread_a_call
from vladmap.photos.decoding.decode import decode_rgb, inspect
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES
from vladmap.simulation.sample import write_sample

THREADS = os.cpu_count() or 1
RENDERED = 120


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


def write_photos(folder: Path, count: int) -> list[Path]:
    """`count` photographs whose bytes all differ."""
    with tempfile.TemporaryDirectory() as city:
        write_sample(Path(city), images=min(count, RENDERED), seed=0)
        rendered = sorted(Path(city, "images").rglob("*.jpg"))
        photos = []
        for number in range(count):
            copy, source = divmod(number, len(rendered))
            photos.append(folder / f"{copy:04d}" / rendered[source].name)
            photos[-1].parent.mkdir(parents=True, exist_ok=True)
            # Decoders stop at the end of the image: what follows makes it another file.
            photos[-1].write_bytes(rendered[source].read_bytes() + copy.to_bytes(2, "big"))
    return photos


def run_of(images: Path, atlas: Path) -> Run:
    settings = BuildOptions(images=str(images), atlas=str(atlas))
    return Run(AtlasStore.open(str(atlas), create=True), settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ingest", type=int, default=3000, help="photographs")
    parser.add_argument("--describe", type=int, default=600, help="photographs")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    shares: dict[str, list[float]] = {"ingest": [], "describe": []}
    rates: dict[str, list[tuple[float, float]]] = {"ingest": [], "describe": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        many, few = root / "many", root / "few"
        photos = {
            "ingest": write_photos(many, options.ingest),
            "describe": write_photos(few, options.describe),
        }
        for number in range(options.rounds + 1):
            run = run_of(many, root / f"ingested{number}")
            ours = {"ingest": timed(lambda run=run: STAGES["ingest"].work(run))}
            atlas = root / f"described{number}"
            run = run_of(few, atlas)
            STAGES["ingest"].work(run)
            STAGES["describe"].work(run)
            # Without the vocabulary, which is learnt once.
            ours |= {each.stage: each.seconds for each in run.results if each.stage == "describe"}
            weights = atlas / "index" / "netvlad-lite" / "model.safetensors"
            bare = {
                "ingest": timed(lambda: bare_ingest(photos["ingest"])),
                "describe": timed(
                    lambda weights=weights: bare_describe(photos["describe"], weights)
                ),
            }
            if number == 0:
                continue  # the first round warms caches and imports
            for stage in shares:
                shares[stage].append(bare[stage] / ours[stage])
                count = len(photos[stage])
                rates[stage].append((count / ours[stage], count / bare[stage]))
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
