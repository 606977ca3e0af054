"""Re-ranking by patches; FAISS's index, and the same on the device by torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import rerank
from benchmarks.gpu.describing import Bench
from benchmarks.gpu.table import LeftOut
from vladmap.retrieval import device_index, faiss_index, index_parts
from vladmap.retrieval.devices import best_first, faiss_computes_on, inner_products
from vladmap.retrieval.kmeans import kmeans


def reranking(bench: Bench) -> None:
    """100 candidates of a query by patches of three sizes, beside the published loop."""
    candidates, rounds = (100, 3) if bench.on_gpu else (10, 1)
    dimension = min(bench.scale.dimension, 512)
    found = rerank.measure(candidates, dimension, rounds, bench.device.type)
    for way, rate, same in found:
        beside = f"{rate / found[0].pairs_a_second:.2f} times the loop"
        if same is not None:
            beside += f", {'the same' if same else '**not** the same'} ranking"
        bench.table.rate(way, rate, beside, "pairs/s")


def search(bench: Bench) -> None:
    """k-means, training, adding and searching a FAISS index; exact search by torch."""
    device, count = bench.device.type, bench.scale.vectors
    rows = _vectors(count, bench.scale.dimension, 0)
    queries = _vectors(min(1000, count // 10), bench.scale.dimension, 1)
    lists = 1024 if count >= 100_000 else 64
    factory, sample = f"IVF{lists},Flat", rows[: 40 * lists]
    where = f"{count:,} x {rows.shape[1]}, {factory}"

    started = time.perf_counter()
    kmeans(sample, lists // 8, 0, device)
    bench.table.row(f"k-means, {lists // 8} words", _seconds(started), f"of {len(sample):,}")
    started = time.perf_counter()
    index = faiss_index.train_index(factory, rows.shape[1], sample, device)
    bench.table.row("train", _seconds(started), f"{where}, on {len(sample):,}")
    codes = index_parts.encode(index, rows[: count // 10])
    for where_added in (None, bench.device):
        encode = index_parts.encoder(index, where_added)
        found, seconds = _timed(lambda encode=encode: encode(rows[: count // 10]))  # type: ignore[misc]
        same = float((found == codes).all(axis=1).mean())
        beside, by = f"{where}; {same:.4f} are FAISS's", where_added or "FAISS"
        bench.table.rate(f"add, {by}", len(codes) / seconds, beside, "vectors/s")
    index.add(rows)
    (_, best), seconds = _timed(lambda: faiss_index.search(index, queries, 10))
    bench.table.rate("search, FAISS on the CPU", len(queries) / seconds, where, "queries/s")
    by_torch = device_index.searcher(index, bench.device)
    by_torch(queries[:10], 10, count)
    (_, found), seconds = _timed(lambda: by_torch(queries, 10, count))
    beside = f"{float((found == best).mean()):.4f} of the places are FAISS's"
    bench.table.rate(f"search, {device} by torch", len(queries) / seconds, beside, "queries/s")

    exact, seconds = _timed(
        lambda: best_first(inner_products(queries, rows, device), device)[:, :10]
    )
    recall = float((best[:, :, None] == exact[:, None]).any(2).mean())
    beside = f"copies included; the index finds {recall:.3f} of these"
    bench.table.rate(f"exact search, {device}", len(queries) / seconds, beside, "queries/s")
    if not faiss_computes_on(device):
        raise LeftOut("training on a GPU: there is none, or FAISS is no build for GPUs")


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _vectors(count: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors about a thousand centres."""
    generator = np.random.default_rng([seed, dimension])
    centres = np.random.default_rng(dimension).standard_normal((1000, dimension))
    rows = centres[generator.integers(0, 1000, count)].astype(np.float32)
    rows += 0.7 * generator.standard_normal(rows.shape, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _seconds(started: float) -> str:
    return f"{time.perf_counter() - started:.2f} s"
