"""Candidates in the whole collection: the nearest by global descriptor, re-ranked by evidence."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.retrieval.candidates import Gallery
from vladmap.retrieval.descriptors import ImageIds
from vladmap.retrieval.faiss_index import Index, Matrix, search

if TYPE_CHECKING:
    import torch

Pair = tuple[str, str]
"""(image_id of the query, image_id of its candidate)."""


@dataclasses.dataclass(frozen=True)
class RankedCandidates:
    """The n candidates of one query, most similar first.

    `images` are their ids, `shards` the shards that they lie in, `similarity` (n,) their cosines.
    """

    query: str
    images: list[str]
    shards: list[str]
    similarity: NDArray[np.float32]

    def at(self, positions: NDArray[np.int64]) -> RankedCandidates:
        """The candidates at some positions of the list."""
        images, shards = (
            [values[at] for at in positions.tolist()] for values in (self.images, self.shards)
        )
        return RankedCandidates(self.query, images, shards, self.similarity[positions])


def search_on(
    index: Index, device: torch.device | None
) -> Callable[[Matrix, int, int], tuple[Matrix, NDArray[np.int64]]]:
    """What searches an index for a `Collection`, on a GPU's `device` or by FAISS on the CPU."""
    if device is None:
        return functools.partial(search, index)
    # Brings torch, which pairs by descriptor do without on a CPU.
    from vladmap.retrieval.device_index import searcher

    return searcher(index, device)


@dataclasses.dataclass(frozen=True)
class Collection:
    """The global index of N images: the id of each row, and the shards that the rows came from.

    `shards` (S,) are in the order of the index's rows; `ends` (S,) is, for each shard, the number
    of rows up to and including it. `search` takes (Q, D) vectors, k and the row to stop before.
    """

    search: Callable[[Matrix, int, int], tuple[Matrix, NDArray[np.int64]]]
    ids: ImageIds
    shards: Sequence[str]
    ends: NDArray[np.int64]

    @functools.cached_property
    def _place_of(self) -> dict[str, int]:
        return {shard: place for place, shard in enumerate(self.shards)}

    def nearest(self, query: Gallery, shard: str, count: int) -> list[RankedCandidates]:
        """The `count` nearest images of each image of `query`, the gallery of `shard`.

        An image is not its own candidate. Candidates lie in `shard` or in shards before it, so that
        a pair in two shards is proposed once, by the image in the later one.
        """
        end = int(self.ends[self._place_of[shard]])
        own_rows = np.arange(end - len(query.ids), end)
        similarity, rows = self.search(query.vectors, count + 1, end)
        is_other = (rows >= 0) & (rows != own_rows[:, None])
        ranked = []
        for image, chosen, row, cosines in zip(
            query.ids.tolist(), is_other, rows, similarity, strict=True
        ):
            others = np.flatnonzero(chosen)[:count]
            places = np.searchsorted(self.ends, row[others], side="right")
            ranked.append(
                RankedCandidates(
                    image,
                    self.ids.take(pa.array(row[others])).to_pylist(),
                    [self.shards[at] for at in places.tolist()],
                    cosines[others],
                )
            )
        return ranked


def pairs_by_shard(ranked: Sequence[RankedCandidates]) -> dict[str, list[Pair]]:
    """The pairs of all queries, by the shard that the candidate lies in."""
    pairs: dict[str, list[Pair]] = {}
    for candidates in ranked:
        for image, shard in zip(candidates.images, candidates.shards, strict=True):
            pairs.setdefault(shard, []).append((candidates.query, image))
    return pairs


def rerank(
    ranked: Sequence[RankedCandidates],
    score: Callable[[str, list[Pair]], Sequence[float]],
    order: Callable[[NDArray[np.float64], NDArray[np.float32]], NDArray[np.int64]],
    count: int,
) -> tuple[list[RankedCandidates], dict[Pair, float]]:
    """The `count` best candidates of each query by evidence, and the scores of those pairs.

    `score` returns the scores of pairs whose candidates all lie in one shard. `order` returns the
    positions of a query's candidates, best first, from their scores (n,) and cosines (n,). The
    selected candidates are returned in the order of their cosines.
    """
    scores: dict[Pair, float] = {}
    for shard, pairs in sorted(pairs_by_shard(ranked).items()):
        scores |= zip(pairs, score(shard, pairs), strict=True)
    best = []
    for candidates in ranked:
        own = np.array([scores[candidates.query, image] for image in candidates.images])
        chosen = np.sort(order(own, candidates.similarity)[:count])
        best.append(candidates.at(chosen))
    return best, {
        (candidates.query, image): scores[candidates.query, image]
        for candidates in best
        for image in candidates.images
    }
