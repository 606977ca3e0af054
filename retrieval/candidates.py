"""Candidate pairs of images: near by GPS and alike, alike anywhere, and neighbours in a sequence.

All functions work on whole arrays. The query of a candidate pair is the image in the later shard;
in one shard either image may be the query. `merge_candidates` makes one row of each unordered pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.geodesy.wgs84 import great_circle_m
from vladmap.retrieval.descriptors import descriptor_matrix, image_columns
from vladmap.schemas import tables

PLACE_COLUMNS = ["image_id", "latitude", "longitude", "gps_accuracy_m"]
"""Columns of `images/` that a Gallery is made of."""

NEAR, GLOBAL, SEQUENCE = "near", "global", "sequence"

_SOURCES = (GLOBAL, NEAR, SEQUENCE)


@dataclass(frozen=True)
class Gallery:
    """N images that can be paired.

    `ids` (N,) are sorted, `vectors` (N, D) are unit descriptors, `latitude` and `longitude` (N,)
    are in degrees, NaN without a position; `accuracy_m` (N,) is one standard deviation of GPS.
    """

    ids: NDArray[np.str_]
    vectors: NDArray[np.float32]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    accuracy_m: NDArray[np.float64]

    @staticmethod
    def of(
        descriptors: pa.Table | None, images: pa.Table | None, default_accuracy_m: float
    ) -> Gallery:
        """The gallery of a shard of `descriptors/` and the shard of `images/` that it belongs to.

        `default_accuracy_m` is used for photographs that state no accuracy of their GPS. If either
        table is None the gallery is empty.
        """
        if descriptors is None or images is None:
            empty = np.zeros(0)
            return Gallery(np.zeros(0, "U32"), np.zeros((0, 0), np.float32), empty, empty, empty)
        latitude, longitude, accuracy = image_columns(
            descriptors, images, ("latitude", "longitude", "gps_accuracy_m")
        )
        return Gallery(
            descriptors["image_id"].to_numpy().astype(str),
            descriptor_matrix(descriptors),
            latitude,
            longitude,
            np.where(np.isnan(accuracy), default_accuracy_m, accuracy),
        )

    @property
    def nbytes(self) -> int:
        """Bytes that the gallery takes in memory."""
        columns = (self.ids, self.vectors, self.latitude, self.longitude, self.accuracy_m)
        return sum(column.nbytes for column in columns)

    def rows(self, images: Sequence[str]) -> NDArray[np.int64]:
        """The row of each image id, -1 for an id that is not in the gallery."""
        wanted = np.array(images, dtype=self.ids.dtype if len(self.ids) else "U32")
        if len(self.ids) == 0:
            return np.full(len(wanted), -1)
        at = np.searchsorted(self.ids, wanted).clip(max=len(self.ids) - 1)
        return np.where(self.ids[at] == wanted, at, -1)


@dataclass(frozen=True)
class Candidates:
    """n candidate pairs of one `source`: the ids of query and other image, (n,).

    `similarity` (n,) is the cosine of their descriptors, `distance_m` (n,) their great-circle
    distance in metres, NaN if either image has no position.
    """

    source: str
    query: NDArray[np.str_]
    other: NDArray[np.str_]
    similarity: NDArray[np.float32]
    distance_m: NDArray[np.float64]


def distances_m(
    a: Gallery, b: Gallery, rows_a: NDArray[np.int64], rows_b: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Great-circle metres between rows, NaN where either has no position."""
    return great_circle_m(
        a.latitude[rows_a], a.longitude[rows_a], b.latitude[rows_b], b.longitude[rows_b]
    )


def near_candidates(query: Gallery, other: Gallery, reach_m: float, k: int) -> Candidates:
    """For each query, the k most similar of the other images that are near it by GPS.

    Near means within `reach_m` plus twice the combined GPS error of the two images. The search is
    exact; memory holds (Q, N) scores and distances, but no descriptors per pair.
    """
    all_query = np.arange(len(query.ids))[:, None]
    all_other = np.arange(len(other.ids))[None, :]
    distance = distances_m(query, other, all_query, all_other)
    error = np.hypot(query.accuracy_m[:, None], other.accuracy_m[None, :])
    within = distance <= reach_m + 2 * error
    within &= query.ids[:, None] != other.ids[None, :]
    similarity = np.where(within, query.vectors @ other.vectors.T, -np.inf).astype(np.float32)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    finite = np.isfinite(np.take_along_axis(similarity, order, axis=1))
    rows_a = np.broadcast_to(all_query, order.shape)[finite]
    rows_b = order[finite]
    return _candidates(NEAR, query, other, rows_a, rows_b, distance[rows_a, rows_b])


def known_candidates(
    source: str, query: Gallery, other: Gallery, pairs: Sequence[tuple[str, str]]
) -> Candidates:
    """Candidates of given pairs (image of `query`, image of `other`), with cosine and distance.

    Pairs with an image that has no descriptor are left out.
    """
    rows_a = query.rows([a for a, _ in pairs])
    rows_b = other.rows([b for _, b in pairs])
    there = (rows_a >= 0) & (rows_b >= 0)
    rows_a, rows_b = rows_a[there], rows_b[there]
    return _candidates(
        source, query, other, rows_a, rows_b, distances_m(query, other, rows_a, rows_b)
    )


def _candidates(
    source: str,
    query: Gallery,
    other: Gallery,
    rows_a: NDArray[np.int64],
    rows_b: NDArray[np.int64],
    distance: NDArray[np.float64],
) -> Candidates:
    similarity = np.einsum("nd,nd->n", query.vectors[rows_a], other.vectors[rows_b])
    return Candidates(source, query.ids[rows_a], other.ids[rows_b], similarity, distance)


def merge_candidates(
    candidates: Sequence[Candidates],
    near: int,
    scores: Mapping[tuple[str, str], float] | None = None,
) -> pa.Table:
    """Candidates of one shard's queries as unique unordered pairs, schemas.tables.PAIRS.

    Near candidates come from several galleries; of all of them each query keeps the `near` most
    similar. The rank of a pair is the best one that it has among a query's candidates of one
    source, ordered by similarity. `scores` holds the scores of re-ranked (query, other) pairs.
    """
    if not any(len(part.query) for part in candidates):
        return tables.PAIRS.empty_table()
    source = np.concatenate(
        [np.full(len(part.query), _SOURCES.index(part.source)) for part in candidates]
    )
    query, other, similarity, distance = (
        np.concatenate([getattr(part, name) for part in candidates])
        for name in ("query", "other", "similarity", "distance_m")
    )
    rank = _ranks(source, query, other, similarity)
    keep = (source != _SOURCES.index(NEAR)) | (rank < near)
    rank = np.where(source == _SOURCES.index(SEQUENCE), np.iinfo(np.int32).max, rank)
    source, query, other, similarity, distance, rank = (
        values[keep] for values in (source, query, other, similarity, distance, rank)
    )
    first, second = np.where(query < other, query, other), np.where(query < other, other, query)
    keys, start, group = np.unique(
        np.stack([first, second], axis=1), axis=0, return_index=True, return_inverse=True
    )
    group = group.ravel()
    seen = np.zeros((len(keys), len(_SOURCES)), bool)
    seen[group, source] = True
    # Matching a to b and b to a may give different scores. If both were computed, the score of the
    # query with the greater id is taken, so that the result does not depend on the order of input.
    ordered = {(min(pair), max(pair)): score for pair, score in sorted((scores or {}).items())}
    best = np.full(len(keys), np.iinfo(np.int32).max, np.int64)
    np.minimum.at(best, group, rank)
    return pa.Table.from_arrays(
        [
            pa.array(keys[:, 0], pa.string()),
            pa.array(keys[:, 1], pa.string()),
            pa.array(
                [[_SOURCES[at] for at in np.flatnonzero(row)] for row in seen],
                pa.list_(pa.string()),
            ),
            pa.array(similarity[start], pa.float32()),
            pa.array(best, pa.int32(), mask=best == np.iinfo(np.int32).max),
            pa.array([ordered.get((a, b)) for a, b in keys.tolist()], pa.float32()),
            pa.array(distance[start], pa.float64(), mask=np.isnan(distance[start])),
        ],
        schema=tables.PAIRS,
    )


def _ranks(
    source: NDArray[np.int64],
    query: NDArray[np.str_],
    other: NDArray[np.str_],
    similarity: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Rank, from 0, of each candidate among those of its query and source, most similar first."""
    order = np.lexsort((other, -similarity, query, source))
    starts = np.ones(len(order), bool)
    starts[1:] = (source[order][1:] != source[order][:-1]) | (query[order][1:] != query[order][:-1])
    places = np.arange(len(order))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = places - np.maximum.accumulate(np.where(starts, places, 0))
    return ranks
