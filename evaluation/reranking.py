"""Re-ranking a query's best matches by evidence that is computed where it is first needed."""

from __future__ import annotations

import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vladmap.console.quiet import hidden
from vladmap.evaluation.describing import read_pixels
from vladmap.evaluation.sets import Smoothing
from vladmap.features.base import LocalFeatureExtractor, LocalFeatures, Matcher
from vladmap.features.names import reranking_by
from vladmap.features.registry import load_extractor, load_matcher
from vladmap.mapping.two_view import fundamental_inliers
from vladmap.models import DescriptorModel, InputSize
from vladmap.models.aggregated import AggregatedModel
from vladmap.photos.layouts import EvaluationSet
from vladmap.retrieval.evaluation import KEPT, Ranking, rank, reordered
from vladmap.retrieval.names import BY_PATCHES
from vladmap.retrieval.patches import StoredPatches, bytes_an_image, stored
from vladmap.retrieval.rerank import by_inliers, scores_of_each
from vladmap.schemas.rejects import PhotoError

# Measured: a thousand of an image's features order candidates as well as all, in a tenth the time;
# thumbnails are enlarged to have as many.
_FEATURES = 1024
_FEATURE_SIZE = InputSize(480, 800)
_FEATURES_MEANT = "xfeat"
_ERROR_PX = 3.0

_KEPT = 4096  # photographs whose evidence stays in memory: at most 1 GB of patches


class Evidence(ABC):
    """What is computed of a photograph, and how two of them are compared by it."""

    weighs_cosines = False  # whether the cosines of descriptors have a part in the order

    def __init__(self) -> None:
        self.images = 0
        self.bytes = 0
        self.seconds = 0.0
        self._of = functools.lru_cache(_KEPT)(self._measured)

    def of(self, path: Path) -> Any | None:
        """The evidence of a photograph, None where it cannot be read."""
        return self._of(path)

    @property
    def bytes_an_image(self) -> float:
        """Of the evidence as an atlas stores it, on average over what was computed."""
        return self.bytes / max(1, self.images)

    @property
    def milliseconds_an_image(self) -> float:
        """To compute it, reading and decoding left out."""
        return 1000 * self.seconds / max(1, self.images)

    def _measured(self, path: Path) -> Any | None:
        try:
            pixels = read_pixels(path, self._target())
        except PhotoError:
            return None
        started = time.perf_counter()
        evidence, size = self._computed(pixels)
        self.seconds += time.perf_counter() - started
        self.images += 1
        self.bytes += size
        return evidence

    @abstractmethod
    def scores(self, query: Any, candidates: Sequence[Any]) -> NDArray[np.float64]:
        """One score a candidate, larger being better."""

    @abstractmethod
    def order(
        self, scores: NDArray[np.float64], similarity: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Places of the candidates, best first, by these scores and the cosines of descriptors."""

    @abstractmethod
    def _target(self) -> Callable[[int, int], tuple[int, int]]: ...

    @abstractmethod
    def _computed(self, pixels: NDArray[np.uint8]) -> tuple[Any, int]:
        """The evidence, and its bytes."""


class FeatureEvidence(Evidence):
    """The inliers of a fundamental matrix over the matches of local features."""

    weighs_cosines = True

    def __init__(
        self, extractor: LocalFeatureExtractor, matcher: Matcher, threads: int = 1
    ) -> None:
        super().__init__()
        self._extractor, self._matcher = extractor, matcher
        self._pool = ThreadPoolExecutor(threads)

    def scores(self, query: Any, candidates: Sequence[Any]) -> NDArray[np.float64]:
        def inliers(other: Any) -> int:
            return fundamental_inliers(query, other, self._matcher.match(query, other), _ERROR_PX)

        return np.array(list(self._pool.map(inliers, candidates)), np.float64)

    def order(
        self, scores: NDArray[np.float64], similarity: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        inliers = np.nan_to_num(scores, nan=0.0).astype(np.int64)
        return by_inliers(inliers, similarity, self._matcher.inliers_a_cosine)

    def _target(self) -> Callable[[int, int], tuple[int, int]]:
        return _FEATURE_SIZE.target

    def _computed(self, pixels: NDArray[np.uint8]) -> tuple[LocalFeatures, int]:
        found = self._extractor.extract(pixels)
        return found, found.keypoints.nbytes + found.descriptors.nbytes


class PatchEvidence(Evidence):
    """Patches of one size in int8, by the rapid score or a homography's inliers."""

    def __init__(self, model: DescriptorModel, method: str, patch_size: int) -> None:
        super().__init__()
        assert isinstance(model, AggregatedModel)
        self._model, self._method, self._sizes = model, method, (patch_size,)

    def scores(self, query: StoredPatches, candidates: Sequence[Any]) -> NDArray[np.float64]:
        return scores_of_each(query, candidates, self._method)

    def order(
        self, scores: NDArray[np.float64], similarity: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        return np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")

    def _target(self) -> Callable[[int, int], tuple[int, int]]:
        return self._model.input_long_side

    def _computed(self, pixels: NDArray[np.uint8]) -> tuple[StoredPatches, int]:
        patches = stored(self._model.describe_each([pixels], self._sizes)[0][1])
        _, count, dimension = patches.descriptors[0].shape
        return patches, bytes_an_image([count], dimension, "int8")


def evidence(
    method: str, model: DescriptorModel, patch_size: int, threads: int = 1
) -> Evidence | None:
    """What `method`, one of METHODS, orders by; None where the order by descriptor stands.

    `features` are XFeat's (see `features.names.reranking_by`); `threads` compare a query with its
    candidates. Raises UserError where a package is missing.
    """
    if method == "none":
        return None
    if method in BY_PATCHES:
        return PatchEvidence(model, method, patch_size)
    features, matcher = reranking_by(method, _FEATURES_MEANT)
    extractor = load_extractor(features, _FEATURES, _FEATURE_SIZE.largest)
    return FeatureEvidence(extractor, load_matcher(features, matcher), threads)


def ranked(
    queries: NDArray[np.float32],
    database: NDArray[np.float32],
    chosen: EvaluationSet,
    smoothing: Smoothing,
    by: Evidence | None,
    candidates: int,
    factory: str = "",
) -> tuple[Ranking, float]:
    """The ranking of (Q, D) queries in the set's (N, D) database, and the milliseconds a query.

    These are of the search and of comparing the `candidates`; smoothing is done once.
    """
    searched = smoothing.of(database, chosen.database)
    started = time.perf_counter()
    ranking = rank(
        queries,
        # Smoothing puts the first match right more often, and has fewer places among the best:
        # where it weighs in the candidates' order, they are those of the descriptors themselves.
        database if by is not None and by.weighs_cosines else searched,
        chosen.positives,
        keep=max(KEPT, candidates),
        factory=factory,
        leave_one_out=chosen.leave_one_out,
    )
    milliseconds = 1000 * (time.perf_counter() - started) / max(1, len(queries))
    if by is None:
        return ranking, milliseconds
    order, comparing = new_order(ranking, chosen, by, candidates, queries, searched)
    return reordered(ranking, order), milliseconds + comparing


def new_order(
    ranking: Ranking,
    chosen: EvaluationSet,
    by: Evidence,
    candidates: int,
    queries: NDArray[np.float32],
    database: NDArray[np.float32],
) -> tuple[NDArray[np.int64], float]:
    """Places (Q, C) of each query's C best in their new order, and the milliseconds a query.

    These are of the comparisons alone. The cosines that weigh in are those of the descriptors
    `queries` (Q, D) and `database` (N, D), which may be smoothed where those that chose the
    candidates were not. A candidate without evidence scores lowest; the order of a query without
    stays.
    """
    head = min(candidates, ranking.rows.shape[1])
    order = np.tile(np.arange(head), (len(ranking.rows), 1))
    seconds = 0.0
    for query in tqdm(range(len(order)), desc="re-rank", unit=" queries", disable=hidden()):
        rows = ranking.rows[query, :head]
        ours = by.of(chosen.queries.paths[query])
        if ours is None or (rows < 0).all():
            continue
        theirs = [by.of(chosen.database.paths[row]) if row >= 0 else None for row in rows]
        known = [place for place, one in enumerate(theirs) if one is not None]
        started = time.perf_counter()
        scores = np.full(head, np.nan)
        scores[known] = by.scores(ours, [theirs[place] for place in known])
        cosines = np.where(rows >= 0, database[rows] @ queries[query], -np.inf)
        order[query] = by.order(scores, cosines)
        seconds += time.perf_counter() - started
    return order, 1000 * seconds / max(1, len(order))
