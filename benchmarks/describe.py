"""The describe stage beside what it is made of, in one run on 640 x 480 photographs.

    python -m benchmarks.describe [--images N] [--rounds N] [--precision P]

- images a second of the whole stage: reading, decoding, resizing, model, Parquet, ledger;
- of the bare forward pass of its backbone at the same precision, on as many threads, no decoding;
- what each of both, and decoding alone, takes of the processors, which other work on the machine
  changes little: decoding is the stage's own, so it bounds the share that the stage can reach;
- of a loop in float32 that reads, decodes and describes one photograph after the other;
- of the stage with patch descriptors (one size, PCA-whitened) from the same forward pass;
- the peak memory of a process that describes N photographs and of one that describes four times N.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.throughput import THREADS, timed, write_photos
from vladmap.atlas.store import AtlasStore
from vladmap.models import load_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.memory import one_thread_a_call
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.stages.describe import DESCRIBE

_PEAK = (
    "import sys; from benchmarks.describe import stage;"
    "stage(sys.argv[1], sys.argv[2], sys.argv[3]);"
    # Not getrusage: a child's peak there begins at its parent's.
    "print(next(x for x in open('/proc/self/status') if x.startswith('VmHWM')).split()[1])"
)


def stage(images: str, atlas: str, precision: str, **options: object) -> tuple[float, float]:
    """Seconds of the describe stage alone, and of processors, which learning words adds to.

    Photographs are ingested before, and words learnt in the first run.

    An atlas that has been described is described again.
    """
    settings = BuildOptions(images=images, atlas=atlas, precision=precision, **options)  # type: ignore[arg-type]
    run = Run(AtlasStore.open(atlas, create=True), settings)
    STAGES["ingest"].work(run)
    for shard in list(run.ledger(DESCRIBE)):
        run.atlas.forget(DESCRIBE.ledger_name(settings), [shard])
    processors = time.process_time()
    STAGES["describe"].work(run)
    processors = time.process_time() - processors
    seconds = next(result.seconds for result in run.results if result.stage == "describe")
    return seconds, processors


def decode_all(model: AggregatedModel, photos: list[Path]) -> None:
    """Read and decode photographs at the model's size, one after the other."""
    for path in photos:
        decode_rgb(path.read_bytes(), target=model.input_long_side)


def forward(model: AggregatedModel, photos: list[Path]) -> float:
    """Seconds of the bare forward pass over as many images, two at a time on each thread."""
    sizes = model.input_long_side(*Image.open(photos[0]).size)
    pair = np.zeros((model._features.batch_size, sizes[1], sizes[0], 3), np.uint8)
    one_thread_a_call()

    def work() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda _: model._features.maps(pair), range(len(photos) // len(pair))))

    return timed(work)


def one_at_a_time(weights: Path, photos: list[Path]) -> float:
    """Seconds of a plain loop in float32, each forward pass on all cores."""
    torch.set_num_threads(THREADS)
    model = load_model("netvlad-lite", weights)
    started = time.perf_counter()
    for path in photos:
        model.describe([np.asarray(Image.open(path).convert("RGB"))])
    return time.perf_counter() - started


def peak_megabytes(images: Path, atlas: Path, precision: str) -> float:
    words = [sys.executable, "-c", _PEAK, str(images), str(atlas), precision]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env={**os.environ})
    return int(done.stdout.split()[-1]) / 1000


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.describe", description=__doc__)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--patch-dimension", type=int, default=BuildOptions.patch_dimension)
    options = parser.parse_args(arguments)
    rates: dict[str, list[float]] = {name: [] for name in ("stage", "patches", "bare", "loop")}
    processors: dict[str, list[float]] = {name: [] for name in ("stage", "bare", "decoding")}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        few, many = root / "few", root / "many"
        photos = write_photos(few, options.images)
        write_photos(many, 4 * options.images)
        atlas = root / "atlas"
        for number in range(options.rounds + 1):
            seconds: dict[str, float] = {}
            taken: dict[str, float] = {}
            seconds["stage"], taken["stage"] = stage(str(few), str(atlas), options.precision)
            seconds["patches"], _ = stage(
                str(few),
                str(root / "patches"),
                options.precision,
                rerank="rapid",
                patch_dimension=options.patch_dimension,
            )
            weights = atlas / "index" / "netvlad-lite" / "model.safetensors"
            model = load_model("netvlad-lite", weights, precision=options.precision)
            assert isinstance(model, AggregatedModel)
            before = time.process_time()
            seconds["bare"] = forward(model, photos)
            taken["bare"] = time.process_time() - before
            before = time.process_time()
            decode_all(model, photos)
            taken["decoding"] = time.process_time() - before
            seconds["loop"] = one_at_a_time(weights, photos)
            for name, value in seconds.items():
                if number:  # The first round learns the words, and warms imports and caches.
                    rates[name].append(len(photos) / value)
            for name, value in taken.items():
                if number:
                    processors[name].append(1000 * value / len(photos))
        peaks = [
            peak_megabytes(images, root / f"peak-{images.name}", options.precision)
            for images in (few, many)
        ]
    median = {name: statistics.median(values) for name, values in rates.items()}
    print(f"netvlad-lite, {options.precision}, {len(photos)} photographs, {THREADS} threads")
    print(f"describe stage     {median['stage']:6.1f} images/s")
    print(
        f"bare forward pass  {median['bare']:6.1f} images/s, "
        f"share {median['stage'] / median['bare']:.2f} (aim 0.9)"
    )
    ms = {name: statistics.median(values) for name, values in processors.items()}
    print(
        f"processors, an image: stage {ms['stage']:.1f} ms, bare pass {ms['bare']:.1f} ms "
        f"(share {ms['bare'] / ms['stage']:.2f}), decoding {ms['decoding']:.1f} ms "
        f"(so at most {ms['bare'] / (ms['bare'] + ms['decoding']):.2f})"
    )
    print(
        f"one at a time      {median['loop']:6.1f} images/s, "
        f"stage {median['stage'] / median['loop']:.2f} times (aim 3 in bfloat16)"
    )
    print(
        f"with patches       {median['patches']:6.1f} images/s, "
        f"cost {median['stage'] / median['patches']:.2f} (at most 1.5), "
        f"{options.patch_dimension}-d"
    )
    print(f"peak memory        {peaks[0]:.0f} MB, of four times as many {peaks[1]:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
