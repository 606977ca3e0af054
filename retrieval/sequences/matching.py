"""A drive matched as one: the scores of every row of a database for each of its photographs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vladmap.retrieval.names import REACH_FRAMES, REACH_M, SEQUENCE_FRAMES, SEQUENCE_METHODS
from vladmap.retrieval.sequences import seqslam
from vladmap.retrieval.sequences.delta import WINDOW, delta_descriptors
from vladmap.retrieval.sequences.evidence import (
    Evidence,
    Likelihood,
    LocalContrast,
    Matrix,
    Standardised,
    described,
    without_mean,
)
from vladmap.retrieval.sequences.hmm import NOWHERE, most_likely_way
from vladmap.retrieval.sequences.moves import Moves, moves
from vladmap.retrieval.sequences.recordings import Recordings, Rows

Floats = NDArray[np.float64]

_DENSE = 1 << 26  # photographs of a drive times rows, up to which all rows are states
_LISTED = 50  # else the rows that are among so many nearest of a photograph of the drive, and near
_NUMBERS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class SequenceMethod:
    """One of SEQUENCE_METHODS. `number` is its window in photographs, or the longest move of the
    hidden Markov model in metres or frames; None for the default."""

    name: str
    number: float | None = None

    def __str__(self) -> str:
        return self.name if self.number is None else f"{self.name}={self.number:g}"

    @classmethod
    def of(cls, text: str) -> SequenceMethod:
        """The method that `NAME[=N]` names. Raises ValueError with what is wrong."""
        name, given, number = text.partition("=")
        if name not in SEQUENCE_METHODS:
            raise ValueError(f"{name!r} is none of {', '.join(SEQUENCE_METHODS)}")
        if not given:
            return cls(name)
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        least = 0.0 if name.startswith("hmm") else 2.0
        whole = name.startswith("hmm") or value == int(value)
        if not (least <= value <= 10_000 and whole):
            what = "metres or frames" if name.startswith("hmm") else "photographs, 2 or more"
            raise ValueError(f"{number!r} are no {what}")
        return cls(name, value)


@dataclass(frozen=True, eq=False)
class Drives:
    """Descriptors (N, D) in the order of their recordings; positions (N, 3) in metres if any."""

    descriptors: Matrix
    recordings: Recordings
    positions: Floats | None = None


def matched(
    queries: Drives, database: Drives, method: SequenceMethod
) -> Iterator[tuple[int, Matrix, NDArray[np.bool_]]]:
    """Blocks (first query, scores (q, N), nowhere (q,)): the largest score is the best match.

    -inf is no match. Queries and rows without a descriptor have their places by the others of their
    drives, except with `delta`. Scores of the hidden Markov model are of the most likely way
    through the row against the most likely one that is nowhere in the map at this photograph;
    `nowhere` marks those that the most likely way of all has nowhere.
    """
    if method.name.startswith("hmm"):
        yield from _by_ways(queries, database, method)
        return
    if method.name == "delta":
        blocks = _by_delta(queries, database, int(method.number or WINDOW))
    else:
        blocks = _by_trajectories(queries, database, method)
    for first, scores in blocks:
        yield first, scores, np.zeros(len(scores), bool)


def _by_trajectories(
    queries: Drives, database: Drives, method: SequenceMethod
) -> Iterator[tuple[int, Matrix]]:
    search = "trajectory" if method.name.startswith("seqslam") else method.name
    how = seqslam.SeqSlam(int(method.number or SEQUENCE_FRAMES), search)
    evidence: Evidence
    if method.name == "seqslam-published":
        evidence = LocalContrast(queries.descriptors, database.descriptors, database.recordings)
    else:
        evidence = _likelihood(queries, database)
    for first, scores in seqslam.scores(evidence, queries.recordings, database.recordings, how):
        yield first, -scores


def _likelihood(queries: Drives, database: Drives, causal: bool = False) -> Likelihood:
    ours = without_mean(
        queries.descriptors, queries.recordings, database.descriptors if causal else None
    )
    theirs = without_mean(database.descriptors, database.recordings)
    return Likelihood(Standardised(ours, theirs, causal))


def _by_delta(queries: Drives, database: Drives, window: int) -> Iterator[tuple[int, Matrix]]:
    ours = delta_descriptors(queries.descriptors, queries.recordings, window)
    theirs = delta_descriptors(database.descriptors, database.recordings, window)
    step = max(1, _NUMBERS_AT_ONCE // max(1, len(theirs)))
    for first in range(0, len(ours), step):
        scores = ours[first : first + step] @ theirs.T
        scores[~described(ours[first : first + step])] = -np.inf
        scores[:, ~described(theirs)] = -np.inf
        yield first, scores


def _by_ways(
    queries: Drives, database: Drives, method: SequenceMethod
) -> Iterator[tuple[int, Matrix, NDArray[np.bool_]]]:
    causal = method.name == "hmm-causal"
    usual = REACH_FRAMES if database.positions is None else REACH_M
    reach = usual if method.number is None else method.number
    every = moves(database.recordings, database.positions, reach)
    evidence = _likelihood(queries, database, causal)
    count = len(database.recordings)
    for first, end in queries.recordings.spans():
        states = np.arange(count)
        if (end - first) * count > _DENSE:
            states = _states(evidence, first, end, every)
        likelihood = np.concatenate(
            [-np.nan_to_num(z[:, states], nan=0.0) for z in _blocks(evidence, first, end, count)]
        )
        way = most_likely_way(likelihood, every.among(states), causal)
        step = max(1, _NUMBERS_AT_ONCE // max(1, count))
        for start in range(0, end - first, step):
            part = slice(start, start + step)
            scores = np.full((len(way.rows[part]), count), -np.inf, np.float32)
            scores[:, states] = way.best[part] - way.outside[part, None]
            yield first + start, scores, way.rows[part] == NOWHERE


def _blocks(evidence: Evidence, first: int, end: int, count: int) -> Iterator[Matrix]:
    step = max(1, _NUMBERS_AT_ONCE // max(1, count))
    for start in range(first, end, step):
        yield evidence.block(start, min(end, start + step))


def _states(evidence: Evidence, first: int, end: int, every: Moves) -> Rows:
    """The rows that are among the nearest of some photograph of a drive, and what is in reach."""
    listed = np.zeros(every.count, bool)
    for z in _blocks(evidence, first, end, every.count):
        known = ~np.isnan(z).all(axis=1)
        found = np.argpartition(np.nan_to_num(z[known], nan=np.inf), _LISTED, axis=1)
        listed[np.unique(found[:, :_LISTED])] = True
    near = listed.copy()
    near[every.target[listed[every.source]]] = True
    return np.flatnonzero(near)
