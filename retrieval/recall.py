"""How well descriptors find places: recall at rank, mean average precision, precision and recall.

The positives of a query are the rows of the database that show its place. An image without a
descriptor is a zero vector: as a query it has no matches, as a row it is no query's match. It still
counts in every denominator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vladmap.retrieval.devices import best_first, inner_products
from vladmap.retrieval.faiss_index import search, train_index
from vladmap.retrieval.kdtree import search_tree
from vladmap.retrieval.names import KDTREE

RANKS = (1, 5, 10, 20, 100)
RANKING_LENGTH = 100
"""Rows of the database in a ranking, for each query: the largest of RANKS."""

NEVER = np.iinfo(np.int64).max
"""The rank of a positive that is not in the ranking."""

_SCORES_AT_ONCE = 1 << 24

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best rows of the database for Q queries, and the ranks of their positives.

    `rows` and `similarity` (Q, K) are best first, padded with -1 and -inf. They are cosines, or
    with `cosines` False any scores that are larger for better matches. `query`, `positive` and
    `rank` (P,) list all positives, by ascending query: row `positive[i]` of the database is a
    positive of query `query[i]` and has rank `rank[i]`, from 0, or NEVER.
    """

    rows: Rows
    similarity: Scores
    query: Rows
    positive: Rows
    rank: Rows
    cosines: bool = True

    def first(self) -> Rows:
        """The rank (Q,) of each query's best positive, NEVER if it has none in the ranking."""
        best = np.full(len(self.rows), NEVER)
        np.minimum.at(best, self.query, self.rank)
        return best

    def best_positive(self) -> Rows:
        """The row (Q,) of each query's best positive, -1 if it has none in the ranking."""
        order = np.lexsort((self.rank, self.query))
        asked, starts = np.unique(self.query[order], return_index=True)
        best = np.full(len(self.rows), -1)
        best[asked] = self.positive[order][starts]
        return best

    def positives(self) -> Rows:
        """How many positives (Q,) each query has."""
        return np.bincount(self.query, minlength=len(self.rows))


def rank(
    queries: Scores,
    database: Scores,
    positives: Sequence[Rows],
    *,
    keep: int = RANKING_LENGTH,
    factory: str = "",
    leave_one_out: bool = False,
    left_out: Sequence[Rows] = (),
    device: str = "cpu",
) -> Ranking:
    """Rank the rows of an (N, D) database for (Q, D) queries by inner product.

    The search is exact over all rows; rows of equal score stay in their order. It proceeds in
    blocks of queries, so that memory does not grow with Q times N. With a `factory` of FAISS, or
    KDTREE, only the `keep` rows that the index returns are ranked. Zero vectors stand for images
    without a descriptor. With `leave_one_out`, query i is row i and is not ranked for itself.
    `left_out`, if given, lists for each query rows of the database that are not ranked for it; a
    positive among them has rank NEVER. Raises ValueError for `left_out` together with a `factory`.
    """
    if factory and len(left_out):
        raise ValueError("rows are left out of exact search alone")
    flat = _flat(positives)
    there = np.flatnonzero(database.any(axis=1))
    if factory:
        rows, similarity = _by_index(queries, database, there, keep, factory, leave_one_out)
        ranks = _places_in(rows, flat)
    else:
        rows, similarity, ranks = _exact(
            queries, database, there, flat, keep, leave_one_out, left_out, device
        )
    nothing = np.asarray(~queries.any(axis=1))
    rows[nothing], similarity[nothing] = -1, -np.inf
    ranks[nothing[flat[0]]] = NEVER
    return Ranking(rows, similarity, *flat, ranks)


def ranking_of(
    blocks: Iterable[tuple[int, Scores]],
    count: int,
    positives: Sequence[Rows],
    *,
    keep: int = RANKING_LENGTH,
) -> Ranking:
    """The ranking by scores of any kind: (first query, scores (q, N)) of blocks of queries.

    A larger score is a better match, -inf is none; rows of equal score stay in their order. `count`
    is the number N of rows. Queries that are in no block have no matches.
    """
    flat = _flat(positives)
    rows, similarity, ranks = _best_of(blocks, (len(positives), count), flat, keep, "cpu")
    return Ranking(rows, similarity, *flat, ranks, cosines=False)


def reordered(ranking: Ranking, order: Rows) -> Ranking:
    """The ranking with the first C rows of each query in another order, as re-ranking gives it.

    `order` (Q, C) holds their positions in the given ranking, best first.
    """
    head = order.shape[1]
    rows, similarity = ranking.rows.copy(), ranking.similarity.copy()
    rows[:, :head] = np.take_along_axis(rows, order, axis=1)
    similarity[:, :head] = np.take_along_axis(similarity, order, axis=1)
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.broadcast_to(np.arange(head), order.shape), axis=1)
    moved = ranking.rank < head
    ranks = ranking.rank.copy()
    ranks[moved] = places[ranking.query[moved], ranking.rank[moved]]
    return Ranking(rows, similarity, ranking.query, ranking.positive, ranks, ranking.cosines)


@dataclass(frozen=True)
class Figures:
    """Figures of a ranking over `queries` queries, of which `with_positive` have a positive.

    `hits[k]` counts the queries that have a positive among their k best. `mean_average_precision`
    is over the queries with a positive, NaN if there are none.
    """

    queries: int
    with_positive: int
    hits: dict[int, int]
    mean_average_precision: float

    def recall(self, k: int) -> float:
        """Share of hits among all queries, those without a positive included; NaN of no queries."""
        return self.hits[k] / self.queries if self.queries else float("nan")

    def recall_with_positive(self, k: int) -> float:
        """Share of hits among the queries with a positive; NaN if there are none."""
        return self.hits[k] / self.with_positive if self.with_positive else float("nan")


def figures(ranking: Ranking, chosen: NDArray[np.bool_] | None = None) -> Figures:
    """The figures of all queries, or of those `chosen` (Q,)."""
    counted = np.ones(len(ranking.rows), bool) if chosen is None else chosen
    first, positives = ranking.first(), ranking.positives()
    asked = counted & (positives > 0)
    precision = average_precision(ranking)[asked]
    return Figures(
        queries=int(counted.sum()),
        with_positive=int(asked.sum()),
        hits={k: int((first[asked] < k).sum()) for k in RANKS},
        mean_average_precision=float(precision.mean()) if len(precision) else float("nan"),
    )


def average_precision(ranking: Ranking) -> NDArray[np.float64]:
    """(Q,): the mean, over a query's positives, of the precision at the rank of each.

    A positive that is not in the ranking counts 0. NaN for a query without positives.
    """
    order = np.lexsort((ranking.rank, ranking.query))
    query, place = ranking.query[order], ranking.rank[order]
    positives = ranking.positives()
    starts = np.cumsum(positives) - positives
    so_far = np.arange(len(query)) - starts[query] + 1
    precision = np.where(place == NEVER, 0.0, so_far / (place.astype(np.float64) + 1))
    total = np.bincount(query, precision, minlength=len(positives))
    return np.divide(total, positives, out=np.full(len(total), np.nan), where=positives > 0)


def distances(similarity: Scores) -> NDArray[np.float64]:
    """Euclidean distances of unit vectors from their inner products; inf of -inf."""
    return np.sqrt(np.maximum(0.0, 2.0 - 2.0 * similarity.astype(np.float64)))


def uncertainty(ranking: Ranking) -> NDArray[np.float64]:
    """(Q,): the distance of the best match, or minus its score; NaN for a query without one."""
    best = ranking.similarity[:, 0]
    apart = distances(best) if ranking.cosines else -best.astype(np.float64)
    return np.where(ranking.rows[:, 0] >= 0, apart, np.nan)


def ratio_scores(ranking: Ranking, near: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(Q,): the distance of the best match over that of the best match at another place.

    A small ratio means a certain match: the perceptual aliasing score of Zaffar et al., "On the
    Estimation of Image-matching Uncertainty in Visual Place Recognition" (CVPR 2024). `near` (Q, K)
    marks the rows at the place of the best match. If all K rows are there, the last of them is used
    as the match elsewhere. NaN for a query without rows. Of scores that are no cosines it is minus
    the difference of the two, since they have no natural zero.
    """
    known = ranking.rows >= 0
    elsewhere = np.where(known & ~near, ranking.similarity, -np.inf).max(axis=1, initial=-np.inf)
    last = np.where(known, ranking.similarity, np.inf).min(axis=1, initial=np.inf)
    if not ranking.cosines:
        other = np.where(np.isfinite(elsewhere), elsewhere, last).astype(np.float64)
        return np.where(known[:, 0], other - ranking.similarity[:, 0], np.nan)
    best = distances(ranking.similarity[:, 0])
    second = distances(np.where(np.isfinite(elsewhere), elsewhere, last).astype(np.float32))
    ratio = np.divide(best, second, out=np.ones(len(best)), where=second > 0)
    return np.where(known[:, 0], ratio, np.nan)


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """The precision-recall curve: at each `threshold` (T,), matches of at most that score count.

    `precision` (T,) is the share of right ones among the accepted matches, `recall` (T,) the share
    of the queries with a positive whose match is accepted and right.
    """

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    @property
    def area(self) -> float:
        """The area under the curve: the sum of precision times the increase in recall."""
        return float(np.sum(self.precision * np.diff(self.recall, prepend=0.0)))

    @property
    def recall_at_full_precision(self) -> float:
        """The largest recall at a precision of 1."""
        return float(self.recall[self.precision >= 1.0].max(initial=0.0))


def precision_recall(
    score: NDArray[np.float64], right: NDArray[np.bool_], with_positive: int
) -> PrecisionRecall:
    """The curve of the best matches of Q queries; a lower `score` (Q,) is more certain.

    Matches of equal score are accepted together. A score of NaN means that there is no match.
    """
    known = np.flatnonzero(~np.isnan(score))
    order = known[np.argsort(score[known], kind="stable")]
    hits = np.cumsum(right[order])
    threshold = score[order]
    ends = np.flatnonzero(np.append(threshold[1:] != threshold[:-1], True)[: len(order)])
    accepted = ends + 1
    return PrecisionRecall(
        threshold[ends], hits[ends] / accepted, hits[ends] / max(1, with_positive)
    )


def _flat(positives: Sequence[Rows]) -> tuple[Rows, Rows]:
    """Queries and rows (P,) of all positives."""
    counts = np.array([len(rows) for rows in positives], np.int64)
    query = np.repeat(np.arange(len(positives)), counts)
    rows = np.concatenate([np.empty(0, np.int64), *positives]).astype(np.int64)
    return query, rows


def _exact(
    queries: Scores,
    database: Scores,
    there: Rows,
    flat: tuple[Rows, Rows],
    keep: int,
    leave_one_out: bool,
    left_out: Sequence[Rows],
    device: str,
) -> tuple[Rows, Scores, Rows]:
    count = len(database)
    missing = np.ones(count, bool)
    missing[there] = False
    step = max(1, _SCORES_AT_ONCE // max(1, count))

    def blocks() -> Iterator[tuple[int, Scores]]:
        for start in range(0, len(queries), step):
            scores = inner_products(queries[start : start + step], database, device)
            scores[:, missing] = -np.inf
            own = np.arange(len(scores))
            if leave_one_out:
                scores[own, own + start] = -np.inf
            scores[_flat(left_out[start : start + step])] = -np.inf
            yield start, scores

    return _best_of(blocks(), (len(queries), count), flat, keep, device)


def _best_of(
    blocks: Iterable[tuple[int, Scores]],
    shape: tuple[int, int],
    flat: tuple[Rows, Rows],
    keep: int,
    device: str,
) -> tuple[Rows, Scores, Rows]:
    """Rows and scores (Q, K) of the best, and the ranks (P,) of positives, by blocks of scores."""
    count = shape[1]
    keep = min(keep, count)
    rows = np.full((shape[0], keep), -1)
    similarity = np.full((shape[0], keep), -np.inf, np.float32)
    ranks = np.full(len(flat[0]), NEVER)
    for start, scores in blocks:
        part_of = slice(start, start + len(scores))
        order = best_first(scores, device)
        best = order[:, :keep]
        best_scores = np.take_along_axis(scores, best, axis=1)
        rows[part_of] = np.where(np.isfinite(best_scores), best, -1)
        similarity[part_of] = best_scores
        places = np.empty_like(order)
        np.put_along_axis(places, order, np.broadcast_to(np.arange(count), order.shape), axis=1)
        part = slice(*np.searchsorted(flat[0], [start, start + len(scores)]))
        at = flat[0][part] - start, flat[1][part]
        ranks[part] = np.where(np.isfinite(scores[at]), places[at], NEVER)
    return rows, similarity, ranks


def _by_index(
    queries: Scores, database: Scores, there: Rows, keep: int, factory: str, leave_one_out: bool
) -> tuple[Rows, Scores]:
    keep = min(keep, len(database))
    wanted = keep + leave_one_out
    if factory == KDTREE:
        similarity, ids = search_tree(database[there], queries, wanted)
    else:
        index = train_index(factory, database.shape[1], database[there])
        index.add(database[there])
        similarity, ids = search(index, queries, wanted)
    rows = np.where(ids >= 0, np.append(there, -1)[ids], -1)
    similarity = np.where(rows >= 0, similarity, -np.inf).astype(np.float32)
    if leave_one_out:
        own = rows == np.arange(len(rows))[:, None]
        similarity[own], rows[own] = -np.inf, -1
        order = np.argsort(-similarity, axis=1, kind="stable")
        rows, similarity = (np.take_along_axis(a, order, axis=1) for a in (rows, similarity))
    short = max(0, keep - rows.shape[1])
    rows = np.pad(rows, ((0, 0), (0, short)), constant_values=-1)
    similarity = np.pad(similarity, ((0, 0), (0, short)), constant_values=-np.inf)
    return rows[:, :keep], similarity[:, :keep]


def _places_in(rows: Rows, flat: tuple[Rows, Rows]) -> Rows:
    """The rank of each positive in its query's `rows` (Q, K), or NEVER."""
    query, place = np.nonzero(rows >= 0)
    count = max(int(rows.max(initial=0)), int(flat[1].max(initial=0))) + 1
    keys = query * count + rows[query, place]
    order = np.argsort(keys, kind="stable")
    wanted = flat[0] * count + flat[1]
    if not len(keys):
        return np.full(len(wanted), NEVER)
    at = np.searchsorted(keys[order], wanted).clip(max=len(keys) - 1)
    return np.where(keys[order][at] == wanted, place[order][at], NEVER)
