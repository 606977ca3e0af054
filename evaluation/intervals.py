"""How far a share may be off by chance: bootstrap over drives, whose photographs fail together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vladmap.evaluation.sequences import in_drives
from vladmap.photos.places import Places

Rows = NDArray[np.int64]

_FEW = 10  # drives; fewer are cut into stretches
STRETCH = 20  # photographs
SQUARE_M = 200.0
_SAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of what resampling gives; `groups` were drawn, which are `of`."""

    low: float
    high: float
    groups: int
    of: str


@dataclass(frozen=True, eq=False)
class Groups:
    """The group (Q,) of each query, from 0; groups are drives, stretches or photographs."""

    number: Rows
    of: str

    @property
    def count(self) -> int:
        return int(self.number.max(initial=-1)) + 1


def groups_of(places: Places) -> Groups:
    """The drives of the queries; fewer than 10 are cut into stretches of 20 photographs.

    Without known drives the photographs in one square of 200 metres are a group. Without positions
    each photograph is one, and the interval too narrow: what lies together is right and wrong
    together.
    """
    if not any(places.drives):
        if len(places) and np.isfinite(places.positions).all():
            cells = np.floor(places.positions / SQUARE_M)
            _, square = np.unique(cells, axis=0, return_inverse=True)
            return Groups(square.ravel(), f"squares of {SQUARE_M:g} m")
        return Groups(np.arange(len(places)), "photographs")
    order, recordings = in_drives(places)
    number = recordings.number
    of = "drives"
    if len(recordings.spans()) < _FEW:
        within = np.arange(len(number)) - recordings.first
        _, number = np.unique(
            np.stack([number, within // STRETCH], axis=1), axis=0, return_inverse=True
        )
        of = f"stretches of {STRETCH} photographs"
    found = np.empty(len(number), np.int64)
    found[order] = number.ravel()
    return Groups(found, of)


def draws(groups: Groups, seed: int = 0) -> NDArray[np.float64]:
    """(2000, G): how often each group is drawn when as many as there are are drawn at random."""
    count = groups.count
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), _SAMPLES).astype(np.float64)


def share_interval(
    hits: NDArray[np.bool_], groups: Groups, counted: NDArray[np.bool_] | None = None
) -> Interval:
    """The interval of the share of `hits` (Q,) among all queries or those `counted` (Q,)."""
    weight = np.ones(len(hits)) if counted is None else counted.astype(np.float64)
    if not weight.sum():
        return Interval(float("nan"), float("nan"), groups.count, groups.of)
    sizes = np.bincount(groups.number, weight)
    sums = np.bincount(groups.number, weight * hits)
    drawn = draws(groups)
    total = drawn @ sizes
    shares = (drawn @ sums)[total > 0] / total[total > 0]
    low, high = np.percentile(shares, (2.5, 97.5))
    return Interval(float(low), float(high), groups.count, groups.of)
