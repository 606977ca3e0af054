"""The describe stage, beside the bare network and the bare decoders that it is made of."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.inputs import (
    FULL,
    MANIFEST,
    Scale,
    ingested,
    jpeg,
    pictures,
    weights,
    write_jpegs,
)
from benchmarks.gpu.table import LeftOut, Table, rate, watched
from vladmap.atlas.photographs import SHARD_ROWS
from vladmap.atlas.reading import How, ProcessReader, Reader, ThreadReader
from vladmap.atlas.store import AtlasStore
from vladmap.jobs.main import main
from vladmap.models import load_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.encoded import cuda_decoder
from vladmap.models.gpu import Gpu
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.ids import content_hash
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.stages.describe import DESCRIBE
from vladmap.weights.preprocessing import InputSize

_INGESTED = "ingested"


@dataclass
class Bench:
    """Where and how much is measured, and the table that it goes to."""

    table: Table
    device: torch.device
    scale: Scale
    root: Path
    kept: Path
    """The folder of photographs that later runs use again."""
    photos: Path | None = None
    """The folder of the sets that recall is measured on."""
    bare: dict[tuple[str, int], float] = field(default_factory=dict)
    """Images a second of the bare network, at its fastest, by model and number of patch sizes."""

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def model(self, name: str, precision: str = "", device: str = "") -> AggregatedModel:
        """A model in the arithmetic of the device."""
        found = load_model(
            name,
            weights(name, self.scale, self.device.type),
            device or self.device.type,
            precision or ("float16" if self.on_gpu else "float32"),
        )
        assert isinstance(found, AggregatedModel)
        return found

    def sizes(self) -> list[tuple[tuple[int, int], int]]:
        """(width, height) of the photographs, and how many of them."""
        scale = self.scale
        return [(scale.size, scale.images), (scale.large_size, scale.large)]


def network(bench: Bench) -> None:
    """The network alone: pixels on the device to packed descriptors, whitened and normalised."""
    for name in ("netvlad-lite", "netvlad"):
        for patch_sizes in ((), (5,), (2, 5, 8)):
            model = bench.model(name)
            width, height = model.input_long_side(*bench.scale.size)
            fitting = tuple(size for size in patch_sizes if size <= min(width, height) // 16)
            if bench.on_gpu:
                torch.cuda.reset_peak_memory_stats()
            # Compiling takes up to half a minute.
            found = _ways(bench, model, (height, width), fitting, name == "netvlad" or not fitting)
            best = bench.bare[name, len(patch_sizes)] = max(found.values())
            for way, value in found.items():
                beside = f"{width} x {height}, batches of {bench.scale.batch}"
                if fitting and value == best:
                    beside += f"; costs {bench.bare[name, 0] / best:.2f} times the global one"
                if bench.on_gpu:
                    beside += f"; {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of tensors"
                bench.table.rate(f"{name}, {_patches(fitting)}, {way}", value, beside)


@torch.inference_mode()
def _ways(
    bench: Bench, model: AggregatedModel, size: tuple[int, int],
    patch_sizes: tuple[int, ...], compiled: bool,
) -> dict[str, float]:  # fmt: skip
    """Images a second of a batch, called, recorded, and on a GPU compiled and recorded."""
    shape = (bench.scale.batch, *size, 3)
    stack = torch.randint(0, 256, shape, dtype=torch.uint8, device=bench.device)

    def work(one: Tensor = stack) -> Tensor:
        return model.packed(one, patch_sizes)

    found = {"call by call": _rate_of(bench, work)}
    if bench.on_gpu:
        record = Gpu(bench.device).recorder()
        assert record is not None
        found["as a graph"] = _rate_of(bench, record(work, stack))
        if compiled:
            model.compile()
            found["compiled, as a graph"] = _rate_of(bench, record(work, stack))
    return found


def _rate_of(bench: Bench, work: Callable[[], Tensor]) -> float:
    return rate(work, bench.scale.batch, bench.device, rounds=20 if bench.on_gpu else 2)


def _patches(sizes: tuple[int, ...]) -> str:
    if not sizes:
        return "global alone"
    return "patches of " + ", ".join(map(str, sizes)) + " cells"


def prepare(bench: Bench) -> None:
    """Photographs and atlases that know them, for a later run with the same --folder."""
    for size, count in bench.sizes():
        bench.table.row(f"{count:,} of {size[0]} x {size[1]}", str(prepared(bench, size, count)))


def prepared(bench: Bench, size: tuple[int, int], count: int) -> Path:
    """The folder of so many photographs and of an atlas that knows them, made if it is missing."""
    folder = bench.kept / f"{count}-{size[0]}x{size[1]}"
    if not (folder / _INGESTED).exists():
        shutil.rmtree(folder, ignore_errors=True)
        manifest, begun = write_jpegs(folder, count, size), folder / "begun"
        ingested(manifest, begun, shard_images=_shard(count))
        begun.rename(folder / _INGESTED)
    return folder


def _shard(count: int) -> int:
    return max(4, min(200, count // 8))


def stage(bench: Bench) -> None:
    """The whole stage: reading, decoding, model, Parquet, ledger; a model's words are there."""
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("netvlad-lite", "netvlad-lite", {}),
        ("VGG16-NetVLAD", "netvlad", {}),
        ("netvlad-lite with patches", "netvlad-lite", {"rerank": "rapid"}),
        ("VGG16-NetVLAD with patches", "netvlad", {"rerank": "rapid"}),
    ]
    if bench.on_gpu:
        compiled = [
            (f"{label}, compiled", model, {**also, "compile": True}) for label, model, also in ways
        ]
        by_cpu = ("netvlad-lite, the CPU decodes", "netvlad-lite", {"decode": "cpu"})
        ways = [ways[0], *compiled, by_cpu]
    for size, count in bench.sizes():
        options = {"shard_images": _shard(count)}
        folder = prepared(bench, size, count)
        manifest, before = folder / MANIFEST, folder / _INGESTED
        for label, model, also in ways[: 3 if size == bench.scale.large_size else None]:
            atlas = bench.root / "atlas"
            shutil.rmtree(atlas, ignore_errors=True)
            shutil.copytree(before, atlas)
            _described(bench, label, model, manifest, atlas, {**options, **also}, size, count)


def _described(
    bench: Bench, label: str, model: str, manifest: Path, atlas: Path,
    options: dict[str, Any], size: tuple[int, int], count: int,
) -> None:  # fmt: skip
    file = bench.root / f"{model}.safetensors"
    file.write_bytes(weights(model, bench.scale, bench.device.type))
    given: dict[str, Any] = {
        "device": bench.device.type,
        "checkpoint": str(file),
        "patch_size": 5 if min(bench.scale.size) > 200 else 2,
        **options,
    }
    settings = BuildOptions(images=str(manifest), atlas=str(atlas), model=model, **given)
    run = Run(AtlasStore.open(str(atlas), create=True), settings)
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    processor = time.process_time()
    with watched(bench.on_gpu) as seen:
        STAGES["describe"].work(run)
    processor = time.process_time() - processor
    seconds = next(result.seconds for result in run.results if result.stage == "describe")
    beside = [f"{count:,} in {seconds:.1f} s, which includes its start"]
    sizes = 1 if options.get("rerank") else 0
    if (steady := _steady(run)) is not None:
        rate, since, until = steady
        beside.append(f"**{rate:,.0f} images/s** from the first quarter on")
        if bare := bench.bare.get((model, sizes)):
            beside.append(f"{rate / bare:.2f} of the bare network")
        if bench.on_gpu:
            beside.append(seen.between(since, until))
    if bench.on_gpu:
        beside.append(f"this process computed {1e6 * processor / count:.0f} us an image")
    bench.table.rate(f"{label}, {size[0]} x {size[1]}", count / seconds, "; ".join(beside))


def _steady(run: Run) -> tuple[float, float, float] | None:
    """Images a second between the commits of the first quarter of the shards and of the last, and
    when these were; None where they lie too close to each other to tell.
    """
    entries = run.ledger(DESCRIBE).values()
    done = sorted(
        (Path(run.atlas.path(entry.file.path)).stat().st_mtime, entry.file.rows)
        for entry in entries
    )
    first = len(done) // 4
    since, until = done[first][0], done[-1][0]
    if until - since < 0.01:
        return None
    return sum(rows for _, rows in done[first + 1 :]) / (until - since), since, until


def decoders(bench: Bench) -> None:
    """Decoders alone: nvJPEG, and the CPU's in threads and in processes.

    Of photographs at full size without a GPU, too: these rates of a CPU are true anywhere.
    """
    cores = os.cpu_count() or 1
    counts = (512, 128) if bench.on_gpu else (256, 64)
    for size, count in zip((FULL.size, FULL.large_size), counts, strict=True):
        name = f"{size[0]} x {size[1]}"
        rows = _rows(bench.root / f"decode-{size[0]}", count, size)
        if bench.on_gpu:
            bench.table.rate(f"nvJPEG, {name}", _nvjpeg(bench, rows[: bench.scale.batch]))
        target = InputSize(320, 448)
        how, slot = How(10**9, target.target), 3 * target.most_pixels
        for workers in sorted({1, 2, max(cores - 1, 1)}):
            threads = read_rate(ThreadReader(how, workers), rows)
            apart = read_rate(ProcessReader(how, workers, len(rows), slot), rows)
            what = f"the CPU in {workers} {{}}, {name}"
            beside = "while another thread holds the interpreter's lock"
            bench.table.rate(what.format("thread" if workers == 1 else "threads"), threads, beside)
            beside = f"{apart / threads:.1f} times threads"
            bench.table.rate(what.format("process" if workers == 1 else "processes"), apart, beside)
    if not bench.on_gpu:
        raise LeftOut("nvJPEG needs a GPU")


def _nvjpeg(bench: Bench, rows: list[dict[str, Any]]) -> float:
    files = [
        torch.frombuffer(bytearray(Path(row["uri"]).read_bytes()), dtype=torch.uint8)
        for row in rows
    ]
    decode = cuda_decoder(bench.device)
    return rate(lambda: decode(files), len(files), bench.device, 10)


def _rows(folder: Path, count: int, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Rows of `images/` as far as readers need them."""
    folder.mkdir(parents=True)
    files, found = [jpeg(each) for each in pictures(min(count, 32), size)], []
    for number in range(count):
        path, data = folder / f"{number}.jpg", files[number % len(files)]
        path.write_bytes(data)
        row = dict.fromkeys(SHARD_ROWS.names)
        found.append({**row, "uri": str(path), "content_hash": content_hash(data)})
    return found


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


def agreement(bench: Bench) -> None:
    """Cosines to float32 on the CPU from the same pixels, and what nvJPEG's pixels do to them."""
    images = pictures(4, bench.scale.size)
    for name in ("netvlad-lite", "netvlad"):
        exact = bench.model(name, "float32", "cpu").describe(images)
        for precision in ("float32", "float16"):
            found = bench.model(name, precision).describe(images)
            worst = float((exact * found).sum(axis=1).min())
            bench.table.row(f"{name}, {precision}", f"{worst:.6f}", "worst of 4 pictures")
    if not bench.on_gpu:
        raise LeftOut("nvJPEG's pixels need a GPU")
    files = [jpeg(image) for image in images]
    tensors = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    by_gpu = [one.permute(1, 2, 0).cpu().numpy() for one in cuda_decoder(bench.device)(tensors)]
    by_cpu = [decode_rgb(file) for file in files]
    apart = [np.abs(a.astype(int) - b) for a, b in zip(by_gpu, by_cpu, strict=True)]
    mean, most = np.mean([each.mean() for each in apart]), max(each.max() for each in apart)
    model = bench.model("netvlad-lite")
    cosines = (model.describe(by_gpu) * model.describe(by_cpu)).sum(axis=1)
    bench.table.row(
        "netvlad-lite, nvJPEG's pixels", f"{cosines.min():.4f}",
        f"pixels differ by {mean:.2f} grey levels, at most {most}",
    )  # fmt: skip


def recall(bench: Bench) -> None:
    """Recall@1 of netvlad-lite by the CPU's pixels and by nvJPEG's, of real photographs."""
    if bench.photos is None:
        raise LeftOut("--photos names no folder with sped/ and gardens-point/")
    for name, tolerance in (("sped", 0), ("gardens-point", 2)):
        for decode in ("cpu", "gpu") if bench.on_gpu else ("cpu",):
            words = ["evaluate", str(bench.photos / name), "--frames-tolerance", str(tolerance)]
            words += ["--json", "--device", bench.device.type, "--decode", decode]
            words += ["--precision", "float16"] if bench.on_gpu else []
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                code = main(words)
            if code:
                raise RuntimeError(f"vladmap {' '.join(words)} ended with {code}")
            share = json.loads(printed.getvalue())["all"]["recall_over_all_queries"]["1"]
            bench.table.row(f"{name}, decoded by the {decode}", f"{100 * share:.1f} %", "recall@1")
