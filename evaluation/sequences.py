"""Drives matched as one, in an evaluation: which photographs are a drive, and their ranking."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vladmap.photos.layouts import EvaluationSet
from vladmap.photos.places import Places
from vladmap.retrieval.recall import Ranking, ranking_of
from vladmap.retrieval.sequences.matching import Drives, SequenceMethod, matched
from vladmap.retrieval.sequences.recordings import Recordings, Rows
from vladmap.schemas.rejects import UserError

Matrix = NDArray[np.float32]

ALONE = "alone "
"""Begins the names of recordings of one photograph, whose drive is not known."""


@dataclass(frozen=True, eq=False)
class SequenceRanking:
    """The ranking, the milliseconds a query, and which queries (Q,) are nowhere in the map."""

    ranking: Ranking
    milliseconds: float
    nowhere: NDArray[np.bool_]


def method_of(text: str) -> SequenceMethod:
    """The method that `--sequence` names. Raises UserError."""
    try:
        return SequenceMethod.of(text)
    except ValueError as error:
        raise UserError(f"--sequence {text}: {error}") from error


def check_drives(chosen: EvaluationSet) -> None:
    """Raises UserError where no drives are known that could be matched as one."""
    if chosen.leave_one_out:
        raise UserError("--sequence needs queries apart from the database")
    for name, places in (("queries", chosen.queries), ("database", chosen.database)):
        if not any(places.drives):
            raise UserError(
                f"--sequence: of the {name} no drives are known: frame-aligned folders, an atlas, "
                "MSLS with seq_info.csv, and a CSV with sequence and frame have them"
            )


def in_drives(places: Places) -> tuple[Rows, Recordings]:
    """The rows in the order of their drives, and their recordings.

    A photograph whose drive is unknown is a recording of its own.
    """
    drives = places.drives or ("",) * len(places)
    names = np.array([name or f"{ALONE}{row:09d}" for row, name in enumerate(drives)], dtype=object)
    moments = np.zeros(len(places)) if places.moments is None else places.moments
    _, number = np.unique(names, return_inverse=True)
    order = np.lexsort((np.arange(len(places)), moments, number))
    return order, Recordings.of(number[order])


def ranked_in_drives(
    queries: Matrix, database: Matrix, chosen: EvaluationSet, method: SequenceMethod
) -> SequenceRanking:
    """The ranking of (Q, D) queries in the set's (N, D) database, each drive matched as one."""
    check_drives(chosen)
    asked, query_recordings = in_drives(chosen.queries)
    rows, recordings = in_drives(chosen.database)
    positions = None if chosen.metres is None else chosen.database.positions[rows]
    nowhere = np.zeros(len(queries), bool)
    started = time.perf_counter()

    def blocks() -> Iterator[tuple[int, Matrix]]:
        found = matched(
            Drives(queries[asked], query_recordings),
            Drives(database[rows], recordings, positions),
            method,
        )
        for first, scores, lost in found:
            own = asked[first : first + len(scores)]
            nowhere[own] = lost
            in_order = np.empty_like(scores)
            in_order[:, rows] = scores
            yield first, in_order

    ranking = ranking_of(blocks(), len(database), [chosen.positives[row] for row in asked])
    milliseconds = 1000 * (time.perf_counter() - started) / max(1, len(queries))
    return SequenceRanking(_of_queries(ranking, asked), milliseconds, nowhere)


def _of_queries(ranking: Ranking, asked: Rows) -> Ranking:
    """The ranking of the queries `asked` (Q,), all in another order, in their own order."""
    rows, similarity = np.empty_like(ranking.rows), np.empty_like(ranking.similarity)
    rows[asked], similarity[asked] = ranking.rows, ranking.similarity
    query = asked[ranking.query]
    order = np.argsort(query, kind="stable")
    return Ranking(
        rows,
        similarity,
        query[order],
        ranking.positive[order],
        ranking.rank[order],
        ranking.cosines,
    )
