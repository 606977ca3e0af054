"""Places of a whole drive by a hidden Markov model: what is likely, and can be driven.

The states are the rows of the database, and one more, nowhere in this map. The likelihoods are
those of single photographs (`evidence`), the transitions moves along what was driven (`moves`).
Hansen and Browning, "Visual place recognition using HMM sequence matching" (IROS 2014), find the
most likely way by Viterbi's algorithm; here moves are in metres, lead both ways and from one
recording to another, and their usual lengths are learnt from the drive itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vladmap.retrieval.sequences.moves import Moves
from vladmap.retrieval.sequences.recordings import Rows

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]

NOWHERE = -1

ENTER, LEAVE = 1e-3, 1e-2
"""Probabilities, from one photograph to the next, to go nowhere in the map and to come back."""

_BINS = 10  # of the lengths of moves, each way
_BACKWARDS = 0.2
_BEFOREHAND = 0.2  # share of moves that are as they were expected, whatever was learnt
_FLOOR = 0.05  # share of moves that are of any length alike
_PASSES = 3  # of which each learns the lengths of moves from the way that the one before found


@dataclass(frozen=True, eq=False)
class Way:
    """The most likely way of a drive of T photographs through N rows.

    `rows` (T,) are its rows, NOWHERE where it is in none. `best` (T, N) is the logarithm of the
    probability of the most likely way through each row, and `outside` (T,) of that through nowhere,
    relative to the most likely of all, 0. In causal use the ways end at the photograph.
    """

    rows: Rows
    best: Matrix
    outside: Matrix


class Transitions:
    """Logarithms of the probabilities of moves between N rows, by target: `source` (W, N).

    A row has at most W predecessors; places beyond are N, the row of -inf. Lengths of moves fall
    into bins of equal width from -reach to reach. `lengths` are the probabilities of the bins; they
    are shared out among the rows that lie in a bin, and those of a source sum to 1; less where it
    has fewer ways on than most, as at a recording's end, where the rest leads off the map. By
    default a move is likely to be as long as the usual one from a row of the database to the next,
    and 5 times less likely to lead backwards.
    """

    def __init__(self, moves: Moves, lengths: Floats | None = None) -> None:
        self._moves = moves
        self._bin = self._bins(moves.length)
        self.lengths = self._beforehand() if lengths is None else lengths
        count = moves.count
        bins = moves.source * len(self.lengths) + self._bin
        sharing = np.bincount(bins)[bins]
        weight = self.lengths[self._bin] / sharing
        total = np.bincount(moves.source, weight, minlength=count)
        logs = np.log(weight / np.maximum(total, np.median(total))[moves.source])
        starts = np.searchsorted(moves.target, np.arange(count))
        place = np.arange(len(moves.target)) - starts[moves.target]
        width = int(place.max(initial=0)) + 1
        self.source = np.full((width, count), count)
        self.log = np.full((width, count), -np.inf)
        self.source[place, moves.target] = moves.source
        self.log[place, moves.target] = logs
        self.target, self.back_log = self._by_source(logs)

    def borders(self) -> tuple[float, float, float, float]:
        """Logarithms: to stay in the map, to leave it, to come back to a row, to stay outside."""
        return (
            float(np.log(1 - ENTER)),
            float(np.log(ENTER)),
            float(np.log(LEAVE / self._moves.count)),
            float(np.log(1 - LEAVE)),
        )

    def _beforehand(self) -> Floats:
        """Probabilities of the bins before anything is known of a drive."""
        moves = self._moves
        steps = moves.length[(moves.target == moves.source + 1) & (moves.length > 0)]
        usual = float(np.median(steps)) if len(steps) else moves.reach
        length = np.arange(-_BINS, _BINS + 1) / _BINS * moves.reach
        weight = np.exp(-np.abs(length - usual) / max(usual, 1e-9))
        weight[:_BINS] *= _BACKWARDS
        return (1 - _FLOOR) * weight / weight.sum() + _FLOOR / len(weight)

    def learnt(self, rows: Rows) -> Transitions:
        """The transitions with lengths of moves as those from each of `rows` (T,) to the next."""
        known = (rows[:-1] >= 0) & (rows[1:] >= 0)
        wanted = rows[:-1][known] * self._moves.count + rows[1:][known]
        keys = self._moves.source * self._moves.count + self._moves.target
        order = np.argsort(keys)
        at = np.searchsorted(keys[order], wanted)
        at = order[np.minimum(at, len(keys) - 1)]
        counts = np.bincount(self._bin[at[keys[at] == wanted]], minlength=len(self.lengths))
        share = counts / max(1, counts.sum())
        lengths = (1 - _BEFOREHAND) * share + _BEFOREHAND * self._beforehand()
        return Transitions(self._moves, lengths)

    def _bins(self, length: Floats) -> Rows:
        if self._moves.reach == 0:
            return np.full(len(length), _BINS)
        return np.rint(length / self._moves.reach * _BINS).astype(np.int64) + _BINS

    def _by_source(self, logs: Floats) -> tuple[Rows, Floats]:
        """The same by source: `target` (W, N) and the logarithms."""
        moves, count = self._moves, self._moves.count
        order = np.argsort(moves.source, kind="stable")
        source = moves.source[order]
        place = np.arange(len(source)) - np.searchsorted(source, np.arange(count))[source]
        width = int(place.max(initial=0)) + 1
        target = np.full((width, count), count)
        log = np.full((width, count), -np.inf)
        target[place, source] = moves.target[order]
        log[place, source] = logs[order]
        return target, log


def most_likely_way(likelihood: Matrix, moves: Moves, causal: bool = False) -> Way:
    """The way of one drive through the rows of a database, exactly, by Viterbi's algorithm.

    `likelihood` (T, N) are log-likelihoods of each photograph at each row relative to anywhere
    else, 0 for no evidence; -inf takes a row out of the model, as for those that are not among a
    photograph's nearest. The usual lengths of moves are learnt in three passes, from all lengths
    alike at first. `causal`: each photograph is placed by those up to it alone, and nothing is
    learnt.
    """
    transitions = Transitions(moves)
    if causal:
        forward, outside = _forward(likelihood, transitions)
        top = np.maximum(forward.max(axis=1), outside)
        rows = np.where(forward.max(axis=1) >= outside, forward.argmax(axis=1), NOWHERE)
        return Way(rows, forward - top[:, None], outside - top)
    for number in range(_PASSES):
        forward, outside = _forward(likelihood, transitions)
        rows = _traced(forward, outside, transitions)
        if number + 1 < _PASSES:
            transitions = transitions.learnt(rows)
    best, out = _with_rest(likelihood, forward, outside, transitions)
    return Way(rows, best, out)


def _forward(likelihood: Matrix, transitions: Transitions) -> tuple[Matrix, Matrix]:
    """The log-probability of the most likely way to each row (T, N), and to nowhere (T,).

    Of each photograph the largest is subtracted.
    """
    frames, count = likelihood.shape
    forward = np.empty((frames, count), np.float32)
    outside = np.empty(frames, np.float32)
    stay, enter, leave, remain = transitions.borders()
    here = np.full(count + 1, np.log(0.5 / count))
    here[count] = -np.inf
    away = float(np.log(0.5))
    for frame in range(frames):
        if frame:
            before, gone = here[:count].max(), away
            came = (here[transitions.source] + transitions.log).max(axis=0) + stay
            here[:count] = np.maximum(came, gone + leave)
            away = max(gone + remain, before + enter)
        here[:count] += likelihood[frame]
        top = max(float(here[:count].max()), away)
        here[:count] -= top
        away -= top
        forward[frame], outside[frame] = here[:count], away
    return forward, outside


def _traced(forward: Matrix, outside: Matrix, transitions: Transitions) -> Rows:
    """The most likely way, from its end back to its begin."""
    frames, count = forward.shape
    stay, enter, leave, remain = transitions.borders()
    rows = np.empty(frames, np.int64)
    at = int(forward[-1].argmax())
    if outside[-1] > forward[-1, at]:
        at = NOWHERE
    rows[-1] = at
    for frame in range(frames - 2, -1, -1):
        if at == NOWHERE:
            best = int(forward[frame].argmax())
            inside = forward[frame, best] + enter
            at = best if inside > outside[frame] + remain else NOWHERE
        else:
            source = transitions.source[:, at]
            known = source < count
            came = forward[frame, source[known]] + transitions.log[known, at] + stay
            best = int(came.argmax())
            at = int(source[known][best]) if came[best] >= outside[frame] + leave else NOWHERE
        rows[frame] = at
    return rows


def _with_rest(
    likelihood: Matrix, forward: Matrix, outside: Matrix, transitions: Transitions
) -> tuple[Matrix, Matrix]:
    """Of the ways to each row, the log-probability with the most likely rest of the drive."""
    frames, count = forward.shape
    stay, enter, leave, remain = transitions.borders()
    best = np.empty_like(forward)
    out = np.empty_like(outside)
    rest = np.zeros(count + 1)
    rest[count] = -np.inf
    away = 0.0
    for frame in range(frames - 1, -1, -1):
        if frame < frames - 1:
            rest[:count] += likelihood[frame + 1]
            onward = (rest[transitions.target] + transitions.back_log).max(axis=0) + stay
            back = rest[:count].max() + leave
            rest[:count] = np.maximum(onward, away + enter)
            away = max(away + remain, back)
        top = max(float(rest[:count].max()), away)
        rest[:count] -= top
        away -= top
        best[frame] = forward[frame] + rest[:count]
        out[frame] = outside[frame] + away
        top = max(best[frame].max(), out[frame])
        best[frame] -= top
        out[frame] -= top
    return best, out
