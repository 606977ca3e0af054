"""What the GPU path does: on a GPU its rates, without one the proofs that a CPU can give.

    python -m benchmarks.gpu [--images N] [--large N] [--device cpu|cuda]

On a GPU: the whole describe stage beside the bare network and the bare decoder, on JPEGs of 640 x
480 and 2048 x 1536 in forty H3 cells; re-ranking; memory and utilisation. VGG16 has seeded random
weights: rates do not depend on them. On a CPU, in small: batches cross shards, the threads that
compute outlive them, descriptors are the same bytes whoever reads, and processes that decode leave
the interpreter's lock. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import rerank
from benchmarks.describe import stage
from vladmap.atlas.photographs import SHARD_ROWS
from vladmap.atlas.reading import How, ProcessReader, Reader, ThreadReader
from vladmap.models import learning, load_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.batches import BatchDescriber
from vladmap.models.checkpoints.vocabulary import to_bytes
from vladmap.models.encoded import cuda_decoder
from vladmap.models.memory import one_thread_a_call
from vladmap.photos.ids import content_hash
from vladmap.weights.preprocessing import InputSize

CELLS = 40
_DIFFERENT = 50  # pictures; the rest are copies that differ in trailing bytes


def write_jpegs(folder: Path, count: int, width: int, height: int) -> Path:
    """`count` JPEGs, and a manifest that spreads them over forty cells; returns the manifest."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng([count, width])
    files = []
    for _ in range(min(count, _DIFFERENT)):
        coarse = generator.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        path = folder / "picture.jpg"
        picture.save(path, quality=90)
        files.append(path.read_bytes())
        path.unlink()
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "latitude", "longitude"])
        for number in range(count):
            name = f"{number:06d}.jpg"
            (folder / name).write_bytes(files[number % len(files)] + number.to_bytes(4, "big"))
            cell = number % CELLS
            rows.writerow([name, 48.0 + 0.02 * (cell // 8), 16.0 + 0.03 * (cell % 8)])
    return manifest


@contextmanager
def utilisation() -> Iterator[list[int]]:
    """Percent that the GPU was busy, asked of nvidia-smi each fifth of a second."""
    seen: list[int] = []
    over = threading.Event()

    def look() -> None:
        words = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not over.wait(0.2):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            seen.extend(int(word) for word in done.stdout.split() if word.isdigit())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def bare_network(model: AggregatedModel, width: int, height: int, batch: int = 64) -> float:
    """Images a second of the whole pass, from pixels on the device to packed descriptors."""
    size = model.input_long_side(width, height)
    stack = torch.zeros(batch, size[1], size[0], 3, dtype=torch.uint8, device=model.device)
    for _ in range(3):
        model.packed(stack, ())
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        model.packed(stack, ())
    torch.cuda.synchronize()
    return 20 * batch / (time.perf_counter() - started)


def bare_decoder(manifest: Path, batch: int = 64) -> float:
    """Images a second of nvJPEG alone, files in memory."""
    decode = cuda_decoder(torch.device("cuda"))
    paths = sorted(manifest.parent.glob("*.jpg"))[:batch]
    files = [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in paths]
    decode(files)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(5):
        decode(files)
    torch.cuda.synchronize()
    return 5 * len(files) / (time.perf_counter() - started)


def on_a_gpu(images: int, large: int, root: Path) -> None:
    """The table of rates."""
    print(f"{torch.cuda.get_device_name()}, {os.cpu_count()} cores, torch {torch.__version__}")
    for count, width, height in ((images, 640, 480), (large, 2048, 1536)):
        name = f"{width}x{height}"
        manifest = write_jpegs(root / name, count, width, height)
        print(f"nvJPEG alone, {name:<28} {bare_decoder(manifest):8.0f} images/s")
        for label, options in (
            ("netvlad-lite", {}),
            ("netvlad-lite with patches", {"rerank": "rapid"}),
            ("netvlad-lite, CPU decodes", {"decode": "cpu"}),
        ):
            torch.cuda.reset_peak_memory_stats()
            atlas = root / f"{name}-{label.replace(' ', '-')}"
            given: dict[str, Any] = {"device": "cuda", **options}
            with utilisation() as busy:
                seconds = stage(str(manifest), str(atlas), "auto", **given)
            print(
                f"describe, {label:<26} {name:<9} {count / seconds:8.0f} images/s, "
                f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB, busy {max(busy, default=0)} %"
            )
    weights = next(root.glob("*/index/netvlad-lite/model.safetensors"))
    model = load_model("netvlad-lite", weights, "cuda", "float16")
    assert isinstance(model, AggregatedModel)
    print(f"netvlad-lite alone, not recorded      {bare_network(model, 640, 480):8.0f} images/s")
    rerank.main(["--device", "cuda"])


def read_rate(reader: Reader, rows: list[dict[str, Any]]) -> float:
    """Images a second read and decoded while this thread counts, and so wants the lock."""
    for future in [reader.submit(rows[:1]) for _ in range(16)]:  # all that read have started
        reader.give_back(future.result())
    over = threading.Event()

    def busy() -> None:
        while not over.is_set():
            sum(range(10_000))

    thread = threading.Thread(target=busy, daemon=True)
    thread.start()
    started = time.perf_counter()
    together = reader.together
    parts = [rows[at : at + together] for at in range(0, len(rows), together)]
    for future in [reader.submit(part) for part in parts]:
        reader.give_back(future.result())
    seconds = time.perf_counter() - started
    over.set()
    thread.join()
    reader.close()
    return len(rows) / seconds


def on_a_cpu(images: int, root: Path) -> bool:
    """What can be proved without a GPU; False where a proof fails."""
    print("there is no GPU: its rates cannot be measured here; what a CPU can prove, in small:")
    one_thread_a_call()
    manifest = write_jpegs(root / "small", images, 640, 480)
    paths = sorted(manifest.parent.glob("*.jpg"))
    rows = [
        {**dict.fromkeys(SHARD_ROWS.names), "uri": str(path),
         "content_hash": content_hash(path.read_bytes())}
        for path in paths
    ]  # fmt: skip
    size = InputSize(320, 448)
    how, slot = How(10**8, size.target), 3 * size.most_pixels
    print("images read and decoded a second, beside a thread that holds the interpreter's lock:")
    for count in (1, 2):
        threads = read_rate(ThreadReader(how, count), rows)
        apart = read_rate(ProcessReader(how, count, len(rows), slot), rows)
        print(f"  {count} threads {threads:6.0f}, {count} processes {apart:6.0f}")

    reader = ThreadReader(how, 2)
    pixels = [reader.submit([row]).result().photos[0].pixels for row in rows[:24]]
    reader.close()
    stack = [each for each in pixels if each is not None]
    drawn = learning.sample_local_descriptors("netvlad-lite", None, stack[:6], 100, seed=0)
    model = load_model("netvlad-lite", to_bytes(learning.fit("netvlad-lite", None, drawn, 16)))
    expected = model.describe(stack)
    before = threading.active_count()
    describer = BatchDescriber(model, 4, 2)
    shards = [stack[at : at + 3] for at in range(0, len(stack), 3)]  # batches of 4 cross them
    tickets = [describer.add(image) for shard in shards for image in shard]
    describer.flush()
    found = np.stack([ticket.result().descriptor for ticket in tickets])  # type: ignore[union-attr]
    batches, threads_now = describer.taken_latencies(), threading.active_count() - before
    describer.close()
    full = all(count == 4 for count, _ in batches)
    same = found.tobytes() == expected.tobytes()
    print(f"{len(shards)} shards of 3 in {len(batches)} batches, all of 4: {full}")
    print(f"threads that computed them all: {threads_now} (2 at most: {threads_now <= 2})")
    print(f"descriptors are the bytes of one call: {same}")
    return full and same and threads_now <= 2


def main(arguments: list[str] | None = None) -> int:
    """Run what the device allows; exit code 1 where a proof fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--images", type=int, help="of 640x480 (default: 8000, on a CPU 120)")
    parser.add_argument("--large", type=int, default=2000, help="of 2048x1536, on a GPU alone")
    there = torch.cuda.is_available()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if there else "cpu")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if options.device == "cpu":
            return 0 if on_a_cpu(options.images or 120, Path(folder)) else 1
        on_a_gpu(options.images or 8000, options.large, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
