"""Pairs a second of re-ranking by patches, against the published algorithm as written.

`python -m benchmarks.rerank [--candidates 100] [--dimension 512] [--rounds 3]`

Both re-rank the same candidates at patch sizes 2, 5 and 8 of a 640 x 480 photograph, in one run.
The published algorithm takes one candidate after the other: all distances in float32, the nearest
both ways, the spatial score of the mutual ones. Ours takes them together: in float32, the
published numbers, and in int8, as an atlas stores them. The rankings must be equal. The products of
the descriptors alone, in float32, say what no re-ranking by all of them can surpass.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vladmap.retrieval.rerank import fuse, rerank
from vladmap.retrieval.stored_patches import Patches, StoredPatches, bytes_an_image, stored

_SIZES = (2, 5, 8)
_HEIGHT, _WIDTH, _STRIDE = 30, 40, 16


def patches_of(count: int, dimension: int, seed: int, scene: int = 0) -> Patches:
    """Unit descriptors of `count` views of one scene, from much alike to not at all."""
    generator = np.random.default_rng([seed, count])
    descriptors, centres = [], []
    for size in _SIZES:
        down, across = _HEIGHT - size + 1, _WIDTH - size + 1
        ideal = np.random.default_rng([scene, size]).normal(size=(down * across, dimension))
        noise = generator.normal(size=(count, *ideal.shape))
        views = ideal + np.linspace(0.5, 3, count)[generator.permutation(count), None, None] * noise
        descriptors.append(
            (views / np.linalg.norm(views, axis=2, keepdims=True)).astype(np.float32)
        )
        y, x = np.mgrid[:down, :across]
        centre = _STRIDE * np.stack([x.ravel(), y.ravel()], 1) + (_STRIDE * size - 1) / 2
        centres.append(centre.astype(np.float32))
    return Patches(descriptors, centres)


def published(query: Patches, candidates: Patches) -> NDArray[np.float64]:
    """(C, S) rapid scores, a candidate and a size at a time."""
    scores = np.zeros((len(candidates.descriptors[0]), len(_SIZES)))
    for s, grid in enumerate(query.centres):
        cells = ((grid - grid.min(axis=0)) / _STRIDE).round().astype(int)
        ours = torch.from_numpy(query.descriptors[s][0])
        for c, rows in enumerate(candidates.descriptors[s]):
            distances = torch.sqrt(2 - 2 * (ours @ torch.from_numpy(rows).T) + 1e-9)
            forward = torch.min(distances, 0).indices.numpy()
            backward = torch.argmin(distances, 1).numpy()
            mutual = np.flatnonzero(backward[forward] == np.arange(len(forward)))
            if len(mutual) == 0:
                continue
            shift = cells[mutual] - cells[forward[mutual]]
            residual = cells.max(axis=0) - np.abs(shift - shift.mean(axis=0))
            scores[c, s] = (residual**2).sum() / len(grid)
    return scores


def products(query: Patches, candidates: Patches) -> None:
    """Every cosine of a query's patches and its candidates', and nothing else."""
    for ours, theirs in zip(query.descriptors, candidates.descriptors, strict=True):
        columns = torch.from_numpy(ours[0]).T
        for rows in torch.from_numpy(theirs):
            torch.matmul(rows, columns)


def _rate(work: Callable[[], object], pairs: int, rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return pairs / float(np.median(seconds))


class Rate(NamedTuple):
    """Pairs a second of one way, and whether it ranks as the published algorithm does."""

    way: str
    pairs_a_second: float
    same_ranking: bool | None = None


def measure(candidates: int, dimension: int, rounds: int, device: str) -> list[Rate]:
    """The rates of all ways, the published loop's (always on the CPU) first."""
    query = patches_of(1, dimension, seed=1)
    others = patches_of(candidates, dimension, seed=2)
    small: tuple[StoredPatches, StoredPatches] = stored(query), stored(others)
    reference = np.argsort(-fuse(published(query, others)), kind="stable")
    # One of each before the clock starts, so that none pays for first touches.
    exact = rerank(query, others, device=device).order
    eighths = rerank(*small, device=device).order

    def rate(work: Callable[[], object]) -> float:
        return _rate(work, candidates, rounds)

    return [
        Rate("published loop", rate(lambda: published(query, others))),
        Rate(
            "rapid, float32",
            rate(lambda: rerank(query, others, device=device)),
            np.array_equal(exact, reference),
        ),
        Rate(
            "rapid, int8",
            rate(lambda: rerank(*small, device=device)),
            np.array_equal(eighths, reference),
        ),
        Rate("products alone, float32 on the CPU", rate(lambda: products(query, others))),
        Rate("ransac, int8", rate(lambda: rerank(*small, method="ransac", device=device))),
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rerank", description=__doc__)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args(arguments)
    found = measure(options.candidates, options.dimension, options.rounds, options.device)
    print(
        f"sizes {_SIZES}, {options.dimension}-d, {options.candidates} candidates, {options.device}"
    )
    loop = found[0].pairs_a_second
    for way, rate, same in found:
        ranked = "" if same is None else f"  rankings equal: {same}"
        print(f"{way:<34} {rate:8.1f} pairs/s  {rate / loop:5.2f} times{ranked}")
    one = (_HEIGHT - 4) * (_WIDTH - 4)
    print(f"an image, size 5, int8: {bytes_an_image([one], options.dimension, 'int8'):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
