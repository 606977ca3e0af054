"""How time and memory grow with a collection: ingest to pair, then a tenth more photographs.

Coverage is measured, too, of a map without a single pose.

    python -m benchmarks.growth [--sizes 10000 100000] [--workers N] [--folder DIR]

prints for each size and stage: seconds, seconds of CPU (which other work on the machine hardly
changes), peak memory of the driver and of its largest worker; the slope of each between the sizes,
on logarithmic axes: 1 is in proportion to the photographs. Then what a tenth more takes, how long a
start reads the ledger, and a second run that finds nothing to do, process and imports and all.

Photographs and descriptors are made up (benchmarks.made_up): tiny JPEGs with the tags of real ones,
and descriptors from their positions. Decoding and networks take the same for each photograph,
however many there are; benchmarks.throughput and benchmarks.describe measure them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STAGES = ("ingest", "describe", "index", "pair", "coverage")
_LOOK_S = 0.2
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Measured:
    """A process with all below it: seconds, peak memory in MB, and what it printed at the end."""

    seconds: float = 0.0
    cpu: float = 0.0
    driver_mb: float = 0.0
    worker_mb: float = 0.0
    said: dict[str, Any] = field(default_factory=dict)


class _Watch(threading.Thread):
    """Looks at a process and those below it until it ends, and keeps the most of each."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._root, self.done = process, threading.Event()
        self.peak: dict[int, float] = {}
        self.cpu: dict[int, float] = {}

    def run(self) -> None:
        while not self.done.wait(_LOOK_S):
            for process in _tree(self._root):
                try:
                    status = Path(f"/proc/{process}/status").read_text()
                    stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                for line in status.splitlines():
                    if line.startswith("VmHWM"):
                        self.peak[process] = int(line.split()[1]) / 1024
                self.cpu[process] = (int(stat[11]) + int(stat[12])) / _TICKS


def _tree(root: int) -> list[int]:
    """A process and all below it."""
    found, waiting = [], [root]
    while waiting:
        process = waiting.pop()
        found.append(process)
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                waiting += map(int, children.read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def measured(folder: Path, atlas: Path, work: str, workers: int) -> Measured:
    """Do `work` (stages, or `ledger`) in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.growth", "--child", work]
    words += ["--folder", str(folder), "--atlas", str(atlas), "--workers", str(workers)]
    started = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        watch = _Watch(process.pid)
        watch.start()
        said, _ = process.communicate()
        watch.done.set()
        watch.join()
    if process.returncode:
        raise SystemExit(f"{work}: exit code {process.returncode}")
    seconds = time.monotonic() - started
    others = [peak for pid, peak in watch.peak.items() if pid != process.pid]
    return Measured(
        seconds,
        sum(watch.cpu.values()),
        watch.peak.get(process.pid, 0.0),
        max(others, default=0.0),
        json.loads(said.splitlines()[-1]),
    )


def child(work: str, images: str, atlas: str, workers: int) -> None:
    """In a process of its own: run stages, or read the ledger; the last line says how it went."""
    logging.basicConfig(level=logging.WARNING)
    if work == "ledger":
        from vladmap.atlas.store import AtlasStore

        started = time.monotonic()
        store = AtlasStore.open(atlas, create=False, write=False)
        lines = sum(len(store.ledger(stage)) for stage in store.stage_names())
        print(json.dumps({"seconds": time.monotonic() - started, "lines": lines}))
        return
    from vladmap.atlas.store import AtlasStore
    from vladmap.pipeline.build import run_stages
    from vladmap.pipeline.options import BuildOptions

    if work == "coverage":
        from benchmarks import made_up

        made_up.write_empty_map(atlas)
    if "describe" in work:  # of the others nothing is to be made up, and torch is not needed
        from benchmarks import made_up
        from vladmap.pipeline import vocabulary
        from vladmap.transforms import describe

        # What stands in: mypy would have them be what they stand in for.
        vars(vocabulary)["LearnVocabulary"] = made_up.MadeUpWords
        vars(describe)["DescribeImages"] = made_up.MadeUpDescriptors
    words: list[str] = []
    if workers:
        words = ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    options = BuildOptions(images=images, atlas=atlas)
    started = time.monotonic()
    run = run_stages(AtlasStore.open(atlas, create=True), options, words, work.split(","))
    steps = {each.stage: each.elements for each in run.results}
    spent = {each.stage: each.seconds for each in run.results}
    print(json.dumps({"steps": steps, "spent": spent, "seconds": time.monotonic() - started}))


@dataclass
class Size:
    """What was measured of one collection."""

    images: int
    stages: dict[str, Measured]
    more: dict[str, Measured]
    ledger: Measured
    nothing: Measured
    bytes: int
    files: int


def measure(root: Path, images: int, workers: int) -> Size:
    """Build an atlas of so many photographs, and of a tenth more."""
    from benchmarks.made_up import write_photographs

    photographs, atlas = root / f"photographs-{images}", root / f"atlas-{images}"
    write_photographs(photographs, 0, images)
    stages: dict[str, Measured] = {}
    for stage in STAGES:
        stages[stage] = measured(photographs, atlas, stage, workers)
        _print(f"{images:>9,} {stage:<9}", stages[stage])
        print(f"          {_rates(stages[stage])}", flush=True)
    write_photographs(photographs, images, images // 10)
    more: dict[str, Measured] = {}
    for stage in STAGES:
        more[stage] = measured(photographs, atlas, stage, workers)
        _print(f"{images // 10:>+9,} {stage:<9}", more[stage])
    ledger = measured(photographs, atlas, "ledger", workers)
    print(
        f"          {'ledger':<9}{ledger.said['seconds']:8.1f} s for {ledger.said['lines']} lines "
        "at a start",
        flush=True,
    )
    nothing = measured(photographs, atlas, ",".join(STAGES), workers)
    if any(nothing.said["steps"].values()):
        raise SystemExit(f"the second run has done something: {nothing.said['steps']}")
    _print("          nothing  ", nothing)
    files = [path.stat().st_size for path in atlas.rglob("*") if path.is_file()]
    return Size(images, stages, more, ledger, nothing, sum(files), len(files))


def _rates(done: Measured) -> str:
    """Milliseconds on the clock of a unit of each step, with the start of its pipeline."""
    return ", ".join(
        f"{step} {1000 * done.said['spent'][step] / units:.2f} ms"
        for step, units in done.said["steps"].items()
        if units
    )


def _print(name: str, done: Measured) -> None:
    print(
        f"{name}{done.seconds:8.1f} s {done.cpu:8.1f} s of CPU, driver {done.driver_mb:5.0f} MB, "
        f"worker {done.worker_mb:5.0f} MB",
        flush=True,
    )


def _slope(few: Size, many: Size, small: float, large: float) -> float:
    return math.log(large / small) / math.log(many.images / few.images)


def report(few: Size, many: Size) -> None:
    """Print the slopes between two sizes."""
    print(f"slopes from {few.images:,} to {many.images:,} photographs (1 is in proportion):")
    for stage in STAGES:
        a, b = few.stages[stage], many.stages[stage]
        print(
            f"  {stage:<9} seconds {_slope(few, many, a.seconds, b.seconds):5.2f}, "
            f"CPU {_slope(few, many, a.cpu, b.cpu):5.2f}, driver {b.driver_mb - a.driver_mb:+.0f} "
            f"MB, worker {b.worker_mb - a.worker_mb:+.0f} MB"
        )
    totals = [
        [sum(getattr(each, name) for each in size.stages.values()) for size in (few, many)]
        for name in ("seconds", "cpu")
    ]
    seconds, cpu = (_slope(few, many, *pair) for pair in totals)
    print(f"  {'all':<9} seconds {seconds:5.2f}, CPU {cpu:5.2f} (aim 1.05)")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--workers", type=int, default=2, help="processes; 0: the driver works")
    parser.add_argument("--folder", help="where to write, and to leave it (default: a temporary)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--atlas", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.child:
        child(parsed.child, parsed.folder, parsed.atlas, parsed.workers)
        return
    print("made-up photographs of 32x24 pixels and made-up descriptors of 512 numbers stand in")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(parsed.folder or temporary)
        sizes = [measure(root, images, parsed.workers) for images in parsed.sizes]
    for size in sizes:
        each = size.bytes / (1.1 * size.images)
        print(f"{size.images:>9,} photographs and a tenth: {size.files:,} files, "
              f"{each:,.0f} bytes a photograph")  # fmt: skip
    for few, many in itertools.pairwise(sizes):
        report(few, many)


if __name__ == "__main__":
    main()
