"""What cutting a map into tiles costs, and what a second core gains.

    python -m benchmarks.tiles [--images N] [--seed N] [--bounds N N ...] [--cores]

The sample city is built up to its verified pairs once, then mapped and merged at each bound on the
number of images in a tile. For each it prints the number of tiles and the most there should be (1.5
times images / bound), seconds of mapping and of merging and of the processors, all of these over
those of one tile, the memory of the largest process, and how far the map is from the truth.

`--cores` builds the whole city in two tiles, on one core and on all that this process may use:
times, their ratio, and whether the atlases are equal. `--atlas` and `--truth` take a city that was
built before.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from vladmap.atlas import layout
from vladmap.atlas.ledger import LedgerReader
from vladmap.mapping.check import check_map
from vladmap.photos.machine import usable_cores
from vladmap.photos.processes import with_this_package

UP_TO_PAIRS = ("describe", "index", "pair", "verify")
ONE_TILE = 1_000_000


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock and of all processors, and the bytes of the largest process."""

    seconds: float
    processor: float
    memory: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.processor + other.processor,
            max(self.memory, other.memory),
        )


def vladmap(*words: str, cores: int | None = None) -> Cost:
    """Run a command of vladmap to its end, on its first so many cores."""
    command = [sys.executable, "-m", "vladmap.jobs.main", *words, "--quiet"]
    usable = sorted(os.sched_getaffinity(0))[:cores]
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=with_this_package(), preexec_fn=lambda: os.sched_setaffinity(0, usable)
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    seconds = time.perf_counter() - started
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def verified(images: Path, atlas: Path) -> None:
    """An atlas of a city up to its verified pairs."""
    vladmap("ingest", "--images", str(images), "--atlas", str(atlas))
    for stage in UP_TO_PAIRS:
        vladmap(stage, "--atlas", str(atlas))


def bound_line(atlas: Path, truth: Path, bound: int, whole: Cost | None) -> tuple[str, Cost]:
    """Map a copy of an atlas in tiles of at most `bound` images: its figures, and the cost."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "atlas"
        shutil.copytree(atlas, copy)
        mapping = vladmap("reconstruct", "--atlas", str(copy), "--tile-images", str(bound))
        merging = vladmap("merge", "--atlas", str(copy))
        tiles = len(LedgerReader(str(copy)).entries("reconstruct"))
        found = check_map(pq.read_table(copy / layout.POSES), pq.read_table(truth))
    cost = mapping + merging
    most = max(1, int(1.5 * found["images"] / bound))
    ratio = (
        f"{cost.seconds / whole.seconds:6.2f} {cost.processor / whole.processor:6.2f}"
        if whole
        else f"{1:6.2f} {1:6.2f}"
    )
    aligned = found.get("aligned_m", {})
    line = (
        f"{bound:8d} {tiles:6d} {most:6d} {mapping.seconds:8.1f} {merging.seconds:8.1f} "
        f"{cost.processor:8.1f} {ratio} {cost.memory / 2**20:7.0f} "
        f"{found['registered']:5d}/{found['images']:<5d}{found['models']:4d} "
        f"{aligned.get('median', float('nan')):8.3f} {aligned.get('max', float('nan')):8.3f}"
    )
    return line, cost


def compare_bounds(atlas: Path, truth: Path, bounds: Sequence[int]) -> None:
    print(
        "   bound  tiles   most  mapping  merging processor  over one tile  MB max  registered"
        "  models  median      max"
    )
    line, whole = bound_line(atlas, truth, ONE_TILE, None)
    print(line, flush=True)
    for bound in bounds:
        print(bound_line(atlas, truth, bound, whole)[0], flush=True)


def compare_cores(images: Path, count: int, work: Path) -> None:
    """Build a city in two tiles on one core and on all; print both times and their ratio."""
    bound = -(-5 * count // 8)  # four fifths of two such tiles hold all images
    costs = []
    for cores in (1, usable_cores()):
        atlas = work / f"on-{cores}"
        words = ("--images", str(images), "--atlas", str(atlas), "--tile-images", str(bound))
        costs.append(vladmap("build", *words, cores=cores))
        tiles = len(LedgerReader(str(atlas)).entries("reconstruct"))
        print(
            f"build of {count} photographs in {tiles} tiles on {cores} cores: "
            f"{costs[-1].seconds:.1f} s, processors {costs[-1].processor:.1f} s",
            flush=True,
        )
    print(f"ratio {costs[1].seconds / costs[0].seconds:.2f} (aim 0.65 on two cores)")
    different = subprocess.run(
        [sys.executable, "-m", "vladmap.atlas.difference",
         str(work / "on-1"), str(work / f"on-{usable_cores()}")],
        env=with_this_package(),
        check=False,
    ).returncode  # fmt: skip
    print("the atlases differ" if different else "the atlases are equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=120, help="photographs of the city")
    parser.add_argument("--seed", type=int, default=5, help="of the city")
    parser.add_argument("--bounds", type=int, nargs="*", default=[50, 80], help="images in a tile")
    parser.add_argument("--cores", action="store_true", help="compare one core with all")
    parser.add_argument("--atlas", type=Path, help="built up to its verified pairs")
    parser.add_argument("--truth", type=Path, help="of --atlas")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vladmap-tiles-") as folder:
        city = Path(folder) / "city"
        atlas, truth = options.atlas, options.truth or city / "truth.parquet"
        if atlas is None or options.cores:
            vladmap("sample", str(city), "--images", str(options.images), "--seed",
                    str(options.seed))  # fmt: skip
        if options.bounds:
            if atlas is None:
                atlas = Path(folder) / "atlas"
                verified(city / "images", atlas)
            compare_bounds(atlas, truth, options.bounds)
        if options.cores:
            compare_cores(city / "images", options.images, Path(folder))
    print(f"load of the machine, 1, 5 and 15 minutes: {os.getloadavg()}")


if __name__ == "__main__":
    main()
