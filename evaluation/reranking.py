"""Re-ranking a query's best matches by evidence that is computed when it is first needed."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vladmap.console.quiet import hidden
from vladmap.evaluation.describing import Pixels, Target, read_pixels
from vladmap.evaluation.evidence import (
    FEATURES_COMPARED,
    Evidence,
    FeatureEvidence,
    PatchEvidence,
    evidence,
)
from vladmap.evaluation.sets import Smoothing
from vladmap.features.base import LocalFeatures
from vladmap.features.registry import load_extractor
from vladmap.models import DescriptorModel, InputSize
from vladmap.models.aggregated import AggregatedModel
from vladmap.photos.layouts import EvaluationSet
from vladmap.retrieval.recall import RANKING_LENGTH, Ranking, rank, reordered
from vladmap.retrieval.stored_patches import StoredPatches, bytes_an_image, stored
from vladmap.schemas.rejects import PhotoError

_FEATURE_SIZE = InputSize(480, 800)  # thumbnails are enlarged, to have enough features

_CACHED = 4096  # number of photographs whose evidence stays in memory: at most 1 GB of patches


class ComputedEvidence:
    """Evidence of photographs, computed on demand, with its cost in bytes and time.

    `compute` takes pixels, read at the size that `target` gives, and returns the item that
    `evidence` compares and the number of bytes that it takes in an atlas.
    """

    def __init__(
        self, evidence: Evidence[Any], target: Target, compute: Callable[[Pixels], tuple[Any, int]]
    ) -> None:
        self.evidence = evidence
        self._target, self._compute = target, compute
        self._images, self._bytes, self._seconds = 0, 0, 0.0
        self._of = functools.lru_cache(_CACHED)(self._computed)

    def of(self, path: Path) -> Any | None:
        """The item of a photograph; None if it cannot be read."""
        return self._of(path)

    @property
    def bytes_an_image(self) -> float:
        """The mean size in bytes of the computed items, as an atlas stores them."""
        return self._bytes / max(1, self._images)

    @property
    def milliseconds_an_image(self) -> float:
        """The mean time in milliseconds to compute an item, without reading and decoding."""
        return 1000 * self._seconds / max(1, self._images)

    def _computed(self, path: Path) -> Any | None:
        try:
            pixels = read_pixels(path, self._target)
        except PhotoError:
            return None
        started = time.perf_counter()
        item, size = self._compute(pixels)
        self._seconds += time.perf_counter() - started
        self._images += 1
        self._bytes += size
        return item


def computed_evidence(
    way: str,
    features: str,
    model: DescriptorModel,
    patch_size: int,
    threads: int = 1,
    device: str = "cpu",
) -> ComputedEvidence | None:
    """The evidence of a way to re-rank, see `evaluation.evidence.evidence`; None without one.

    Patches of `patch_size` cells are those of `model`. Networks that extract or match features run
    on `device`. Raises UserError where a package is missing.
    """
    chosen = evidence(way, features, threads, device)
    if isinstance(chosen, FeatureEvidence):
        extractor = load_extractor(
            chosen.kind.name, FEATURES_COMPARED, _FEATURE_SIZE.largest, device
        )

        def extract(pixels: Pixels) -> tuple[LocalFeatures, int]:
            extracted = extractor.extract(pixels)
            return extracted, extracted.keypoints.nbytes + extracted.descriptors.nbytes

        return ComputedEvidence(chosen, _FEATURE_SIZE.target, extract)
    if isinstance(chosen, PatchEvidence):
        assert isinstance(model, AggregatedModel)

        def describe(pixels: Pixels) -> tuple[StoredPatches, int]:
            patches = stored(model.describe_each([pixels], (patch_size,))[0][1])
            _, count, dimension = patches.descriptors[0].shape
            return patches, bytes_an_image([count], dimension, "int8")

        return ComputedEvidence(chosen, model.input_long_side, describe)
    return None


def ranked(
    queries: NDArray[np.float32],
    database: NDArray[np.float32],
    chosen: EvaluationSet,
    smoothing: Smoothing,
    by: ComputedEvidence | None,
    candidates: int,
    factory: str = "",
    device: str = "cpu",
) -> tuple[Ranking, float, NDArray[np.float64] | None]:
    """The ranking of (Q, D) queries in the set's (N, D) database, and the milliseconds per query.

    With re-ranking by local features also the inliers (Q,) of each query's best match. The time is
    that of the search and of the comparison of `candidates`, without smoothing.
    """
    searched = smoothing.of(database, chosen.database)
    started = time.perf_counter()
    ranking = rank(
        queries,
        # With smoothing the first match is right more often, but the best matches show fewer
        # places. If the cosine has a part in the new order, candidates are chosen without it.
        database if by is not None and by.evidence.weighs_cosines else searched,
        chosen.positives,
        keep=max(RANKING_LENGTH, candidates),
        factory=factory,
        leave_one_out=chosen.leave_one_out,
        device=device,
    )
    milliseconds = 1000 * (time.perf_counter() - started) / max(1, len(queries))
    if by is None:
        return ranking, milliseconds, None
    order, comparing, best = new_order(ranking, chosen, by, candidates, queries, searched)
    inliers = best if isinstance(by.evidence, FeatureEvidence) else None
    return reordered(ranking, order), milliseconds + comparing, inliers


def new_order(
    ranking: Ranking,
    chosen: EvaluationSet,
    by: ComputedEvidence,
    candidates: int,
    queries: NDArray[np.float32],
    database: NDArray[np.float32],
) -> tuple[NDArray[np.int64], float, NDArray[np.float64]]:
    """The positions (Q, C) of each query's C best in a new order, the milliseconds per query, and
    the score (Q,) of what comes first, 0 where there is no evidence.

    The time is that of the comparisons alone. Cosines are computed from `queries` (Q, D) and
    `database` (N, D), which may be smoothed although candidates were chosen without smoothing. A
    candidate without evidence comes last; for a query without evidence the order stays.
    """
    head = min(candidates, ranking.rows.shape[1])
    order = np.tile(np.arange(head), (len(ranking.rows), 1))
    seconds = 0.0
    first = np.zeros(len(order))
    for query in tqdm(range(len(order)), desc="re-rank", unit=" queries", disable=hidden()):
        rows = ranking.rows[query, :head]
        ours = by.of(chosen.queries.paths[query])
        if ours is None or (rows < 0).all():
            continue
        theirs = [by.of(chosen.database.paths[row]) if row >= 0 else None for row in rows]
        known = [place for place, one in enumerate(theirs) if one is not None]
        started = time.perf_counter()
        scores = np.full(head, np.nan)
        scores[known] = by.evidence.scores(ours, [theirs[place] for place in known])
        cosines = np.where(rows >= 0, database[rows] @ queries[query], -np.inf)
        order[query] = by.evidence.order(scores, cosines)
        first[query] = np.nan_to_num(scores[order[query, 0]])
        seconds += time.perf_counter() - started
    return order, 1000 * seconds / max(1, len(order)), first
