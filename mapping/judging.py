"""Which verified pairs are trusted: judged over the whole collection, before anything is cut.

Two-view geometry cannot tell one of two identical facades from the other (perceptual aliasing),
and one such pair folds a street onto itself. What can tell: where GPS puts the two, where their
drives put them, what their other partners say, and how much two photographs so far apart could
share. A part of a collection sees less of that evidence than the whole.

GPS errs by an offset that a stretch of a drive shares (a street between high houses shifts every
position in it by the same twenty metres) and by noise that each photograph has of its own. The
offsets are found first, from the pairs, so that a drive that was shifted is not torn off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from vladmap.geodesy.wgs84 import ecef_on_ellipsoid
from vladmap.mapping.two_view import inlier_counts

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]

KEPT, FAR, ALIKE, TURNED = range(4)
VERDICTS = ("kept", "far", "alike", "turned")
"""The names of verdicts: trusted; too far apart by GPS and drives, with no third photograph that
confirms the pair; more alike than photographs so far apart can be; turned against what the
photographs that see both say."""

JUDGED = pa.schema(
    [
        ("image_id_a", pa.string()),
        ("image_id_b", pa.string()),
        ("verdict", pa.string()),
        ("distance_m", pa.float64()),
        ("limit_m", pa.float64()),
    ]
)
"""Verified pairs with their verdict, one of VERDICTS, and Judgement's distance and limit."""

QUATERNION = ("qw", "qx", "qy", "qz")

# Distances are trusted where they are below this many standard deviations of both positions, and
# this many metres: photographs of one scene differ by as much. Beyond `_SCENE_M` they still may be
# neighbours by so inexact a GPS, but their other partners must not speak against it.
_SIGMAS = 4.0
_MIN_METRES = 10.0
_SCENE_M = 25.0
# Places before or after each other in a sequence.
_BESIDE = 5
# A position is filled in from its sequence over at most so many places.
_MAX_GAP = 10
# A photograph this far from where four neighbours of its drive have it has a wrong position.
_BLUNDER_M = 20.0

# A stretch of a drive shares one offset: so many photographs, so many metres (one sigma) from
# nothing, so many from the stretch before. Pairs further apart than any offset and any scene
# allow do not take part in finding it.
_STRETCH = 30
_OFFSET_SIGMA_M = 10.0
_OFFSET_STEP_M = 5.0
_MAX_OFFSET_M = 30.0
_ROUNDS = 12
# Pairs between two stretches err alike: together they weigh no more than so many.
_PAIRS_THAT_COUNT = 10.0

# Rotations around three photographs that see each other close to within this.
_CYCLE_DEG = 8.0
_MIN_CYCLES = 4
# Of three photographs, a third that confirms a far pair must see both, and so many are needed.
_MIN_WITNESSES = 2
# A photograph with fewer trusted partners than this is believed about others in sight.
_FEW = 3
_SIGHT_M = 40.0


@dataclass(frozen=True)
class Photographs:
    """What is known of n photographs before they are mapped.

    `position` (n, 3) earth-centred metres, NaN where unknown; `sigma` (n,) metres, one sigma;
    `sequence` (n,) a number for each sequence, -1 for none; `index` (n,) the place in it.
    """

    position: Array
    sigma: Array
    sequence: Indices
    index: Indices


@dataclass(frozen=True)
class Pairs:
    """m verified pairs: rows of their photographs, counts of inliers, and rotations.

    `rotation` (m, 4) is w, x, y, z of second_from_first, NaN where the geometry has none.
    """

    first: Indices
    second: Indices
    inliers: Array
    rotation: Array


@dataclass(frozen=True)
class Judgement:
    """`verdict` (m,) int8, of KEPT and the others; `distance` (m,) metres, NaN where unknown;
    `limit` (m,) metres, what the errors of the two positions may make of none.

    `position` (n, 3) is where each photograph is taken to lie: its GPS without the offset of its
    stretch, else by its sequence, else by its partners; `offset` (n, 3) what was taken off.
    """

    verdict: NDArray[np.int8]
    distance: Array
    limit: Array
    position: Array
    offset: Array


def photographs_of(images: pa.Table, gps_sigma_m: float) -> Photographs:
    """Photographs of rows of IMAGES; `gps_sigma_m` is the accuracy of positions that state none."""

    def column(name: str) -> Array:
        return np.asarray(images[name].to_numpy(), np.float64)

    latitude, longitude = column("latitude"), column("longitude")
    known = np.isfinite(latitude) & np.isfinite(longitude)
    # At height 0: altitudes are the worst of GPS, and say nothing of who sees whom.
    position = np.full((len(latitude), 3), np.nan)
    position[known] = ecef_on_ellipsoid(latitude[known], longitude[known])
    sigma = column("gps_accuracy_m")
    codes = pc.fill_null(images["sequence_id"].combine_chunks().dictionary_encode().indices, -1)
    return Photographs(
        position,
        np.where(np.isfinite(sigma) & (sigma > 0), sigma, gps_sigma_m),
        np.asarray(codes, np.int64),
        np.asarray(pc.fill_null(images["sequence_index"], 0), np.int64),
    )


def judged_table(
    image_ids: Sequence[str], pairs: Pairs, judgement: Judgement, rows: Indices | None = None
) -> pa.Table:
    """Return a table of JUDGED, of all pairs or of some `rows` of them."""
    rows = np.arange(len(pairs.first)) if rows is None else rows
    ids = np.asarray(image_ids, object)
    names = np.asarray(VERDICTS, object)
    return pa.table(
        {
            "image_id_a": ids[pairs.first[rows]].tolist(),
            "image_id_b": ids[pairs.second[rows]].tolist(),
            "verdict": names[judgement.verdict[rows]].tolist(),
            "distance_m": pa.array(judgement.distance[rows], from_pandas=True),
            "limit_m": pa.array(judgement.limit[rows], from_pandas=True),
        },
        schema=JUDGED,
    )


def judge_tables(images: pa.Table, two_views: pa.Table, gps_sigma_m: float) -> pa.Table:
    """Judge the verified pairs of TWO_VIEWS between rows of IMAGES by themselves: JUDGED."""
    images = images.sort_by("image_id")
    ids = images["image_id"].to_pylist()
    known = pa.array(ids, pa.string())
    counts = pa.array(inlier_counts(two_views))
    inside = pc.and_(
        pc.and_(pc.is_in(two_views["image_id_a"], known), pc.is_in(two_views["image_id_b"], known)),
        pc.greater(counts, 0),
    )
    pairs = pairs_of(two_views.filter(inside), known, counts.filter(inside.combine_chunks()))
    judgement = judge(photographs_of(images, gps_sigma_m), pairs)
    return judged_table(ids, pairs, judgement)


def pairs_of(two_views: pa.Table, image_ids: pa.Array, inliers: ArrayLike) -> Pairs:
    """Pairs of rows of TWO_VIEWS, all of whose images are in `image_ids`."""
    first, second = (
        np.asarray(pc.index_in(two_views[f"image_id_{end}"], image_ids), np.int64) for end in "ab"
    )
    rotation = [np.asarray(two_views[name].to_numpy(), np.float64) for name in QUATERNION]
    return Pairs(first, second, np.asarray(inliers, np.float64), np.stack(rotation, axis=1))


def trusted_only(judged: pa.Table) -> pa.Table:
    """The rows of JUDGED that are kept."""
    return judged.filter(pc.equal(judged["verdict"], VERDICTS[KEPT]))


def verdict_counts(judged: pa.Table) -> dict[str, int]:
    """How many pairs of JUDGED have each verdict."""
    found = {row["values"]: row["counts"] for row in judged["verdict"].value_counts().to_pylist()}
    return {name: int(found.get(name, 0)) for name in VERDICTS}


def judge(photographs: Photographs, pairs: Pairs) -> Judgement:
    """Judge all verified pairs of a collection together.

    A pair is trusted if GPS and drives put its photographs beside each other and no majority of
    the rotations around three photographs speaks against it; one further apart if at least two
    photographs between them, trusted partners of both, confirm its rotation, or if one of the two
    has next to no other partner and the other is in sight; and if it has no more inliers than
    nearer pairs of the two. Neighbours in a sequence are beside each other wherever GPS has them.
    Without any position a pair is believed, unless rotations speak against it.
    Time and memory grow with pairs and with partners of each photograph.
    """
    position, sigma = fill_positions(photographs)
    offset = _offsets(photographs, pairs, position, sigma)
    position, sigma = _by_partners(position - offset, sigma, pairs)
    apart = position[pairs.first] - position[pairs.second]
    shift = offset[pairs.first] - offset[pairs.second]
    # No offset is as large as that: pairs that say so are aliases.
    shift[np.linalg.norm(shift, axis=1) <= _MAX_OFFSET_M] = 0.0
    apart += shift
    distance = np.linalg.norm(apart, axis=1)
    error = np.hypot(sigma[pairs.first], sigma[pairs.second])
    limit = np.maximum(_SIGMAS * error, _MIN_METRES)
    beside = _beside(photographs, pairs)

    # NaN compares as false: what nothing is known of is near.
    far = ~beside & (distance > limit)
    unsure = ~beside & (distance > np.minimum(limit, _SCENE_M))
    graph = _Graph(len(position), pairs)
    verdict = np.full(len(pairs.first), KEPT, np.int8)
    closed, open_ = graph.cycles(np.arange(len(far)), ~unsure)
    turned = (open_ >= _MIN_CYCLES) & (closed == 0)
    verdict[turned & ~beside] = TURNED
    trusted = ~unsure & (verdict == KEPT)
    rows = np.flatnonzero(unsure)
    closed, open_ = graph.cycles(rows, trusted, distance)
    confirmed = np.asarray((closed >= _MIN_WITNESSES) & (closed >= open_), bool)
    # Where photographs are few there is no third one to ask: those in sight are believed.
    lonely = graph.partners(trusted)[np.stack([pairs.first, pairs.second])[:, rows]].min(axis=0)
    in_sight = distance[rows] <= limit[rows] + _SIGHT_M
    confirmed |= (lonely < _FEW) & in_sight & (open_ <= closed)
    verdict[rows[far[rows] & ~confirmed]] = FAR
    verdict[rows[~far[rows] & (open_ > closed)]] = TURNED
    alike = graph.more_alike_than_nearer(rows, distance, trusted)
    verdict[rows[alike & (verdict[rows] == KEPT)]] = ALIKE
    return Judgement(verdict, distance, limit, position, offset)


def _beside(photographs: Photographs, pairs: Pairs) -> Bools:
    sequence, index = photographs.sequence, photographs.index
    same = (sequence[pairs.first] == sequence[pairs.second]) & (sequence[pairs.first] >= 0)
    return same & (np.abs(index[pairs.first] - index[pairs.second]) <= _BESIDE)


def fill_positions(photographs: Photographs) -> tuple[Array, Array]:
    """Positions and their sigma, blunders and what is missing filled in from the sequence."""
    position, sigma = photographs.position.copy(), photographs.sigma.copy()
    order = np.lexsort((photographs.index, photographs.sequence))
    order = order[photographs.sequence[order] >= 0]
    if len(order) == 0:
        return position, sigma
    sequence, index = photographs.sequence[order], photographs.index[order]
    position[order[_blunders(position[order], sigma[order], sequence)]] = np.nan

    known = np.isfinite(position[order, 0])
    number = np.arange(len(order))
    before = np.maximum.accumulate(np.where(known, number, -1))
    after = np.minimum.accumulate(np.where(known, number, len(order))[::-1])[::-1]

    def reach(at: Indices) -> Array:
        """Places to the known one at `at` in the same sequence; infinite if there is none."""
        inside = (at >= 0) & (at < len(order))
        at = np.clip(at, 0, len(order) - 1)
        usable = inside & (sequence[at] == sequence) & known[at]
        return np.where(usable, np.abs(index[at] - index), np.inf)

    left, right = reach(before), reach(after)
    fill = ~known & (np.minimum(left, right) <= _MAX_GAP)
    if not fill.any():
        return position, sigma
    a, b = (np.clip(at, 0, len(order) - 1)[fill] for at in (before, after))
    left, right = left[fill], right[fill]
    one_sided = ~np.isfinite(left) | ~np.isfinite(right)
    share = np.where(np.isfinite(left), 0.0, 1.0)
    share[~one_sided] = left[~one_sided] / np.maximum(left + right, 1e-9)[~one_sided]
    start = np.where(np.isfinite(left), a, b)
    end = np.where(np.isfinite(right), b, a)
    there = order[fill]
    position[there] = (1 - share)[:, None] * position[order[start]] + share[:, None] * (
        position[order[end]]
    )
    step = _median_step(position[order], sequence)
    span = np.linalg.norm(position[order[start]] - position[order[end]], axis=1)
    doubt = np.where(one_sided, step * np.minimum(left, right), span / 2)
    sigma[there] = np.hypot(np.maximum(sigma[order[start]], sigma[order[end]]), doubt / 2)
    return position, sigma


def _median_step(position: Array, sequence: Indices) -> float:
    """The usual distance of one photograph to the next."""
    step = np.linalg.norm(np.diff(position, axis=0), axis=1)
    step = step[(np.diff(sequence) == 0) & np.isfinite(step)]
    return float(np.median(step)) if len(step) else 0.0


def _blunders(position: Array, sigma: Array, sequence: Indices) -> Bools:
    """Which positions of sequences, in order, lie off the four neighbours that agree."""
    count = len(position)
    around = np.full((count, 4, 3), np.nan)
    for column, shift in enumerate((-2, -1, 1, 2)):
        at = np.arange(count) + shift
        inside = np.flatnonzero((at >= 0) & (at < count))
        inside = inside[sequence[at[inside]] == sequence[inside]]
        around[inside, column] = position[at[inside]]
    complete = np.isfinite(around).all(axis=(1, 2)) & np.isfinite(position[:, 0])
    middle = np.median(around[complete], axis=1)
    spread = np.linalg.norm(around[complete] - middle[:, None], axis=2).max(axis=1)
    off = np.linalg.norm(position[complete] - middle, axis=1)
    wrong = np.zeros(count, bool)
    wrong[complete] = off > _SIGMAS * sigma[complete] + 2 * spread + _BLUNDER_M
    return wrong


def _offsets(photographs: Photographs, pairs: Pairs, position: Array, sigma: Array) -> Array:
    """The (n, 3) offset that GPS has at each photograph, shared along a stretch of its drive.

    Pairs pull the stretches that they join together, a stretch holds to the one before it and to
    where GPS has it. Robust by graduated non-convexity (Yang et al., RA-L 2020): the Geman-McClure
    weight of a pair is that of a scale that shrinks from the largest offset to the size of a scene.
    """
    count = len(position)
    stretch, following = _stretches(photographs, position)
    groups = int(stretch.max(initial=-1)) + 1
    nothing = np.zeros((count, 3))
    if groups < 2:
        return nothing
    a, b = stretch[pairs.first], stretch[pairs.second]
    apart = position[pairs.first] - position[pairs.second]
    length = np.linalg.norm(apart, axis=1)
    usable = (a >= 0) & (b >= 0) & (a != b) & (length <= _MAX_OFFSET_M + _SCENE_M)
    usable &= ~_beside(photographs, pairs)
    if not usable.any():
        return nothing
    a, b, apart = a[usable], b[usable], apart[usable]
    error = np.hypot(sigma[pairs.first[usable]], sigma[pairs.second[usable]])
    scale = np.hypot(error, _MIN_METRES)
    low, high = np.minimum(a, b), np.maximum(a, b)
    _, together = np.unique(low * groups + high, return_inverse=True)

    offset = np.zeros((groups, 3))
    for width in np.geomspace(_MAX_OFFSET_M, 1.0, _ROUNDS):
        reach = np.maximum(scale, width)
        residual = np.linalg.norm(apart - offset[a] + offset[b], axis=1)
        robust = 1.0 / (1.0 + (residual / reach) ** 2) ** 2
        total = np.bincount(together, robust)
        weight = robust / scale**2 * np.minimum(1.0, _PAIRS_THAT_COUNT / total)[together]
        step_a, step_b = following
        tie = np.full(len(step_a), _OFFSET_STEP_M**-2)
        rows, columns = np.concatenate([a, step_a]), np.concatenate([b, step_b])
        strength = np.concatenate([weight, tie])
        target = np.concatenate([apart, np.zeros((len(step_a), 3))])
        diagonal = np.bincount(rows, strength, groups) + np.bincount(columns, strength, groups)
        normal = coo_matrix(
            (
                np.concatenate([diagonal + _OFFSET_SIGMA_M**-2, -strength, -strength]),
                (
                    np.concatenate([np.arange(groups), rows, columns]),
                    np.concatenate([np.arange(groups), columns, rows]),
                ),
            ),
            (groups, groups),
        ).tocsc()
        right = np.zeros((groups, 3))
        np.add.at(right, rows, strength[:, None] * target)
        np.add.at(right, columns, -strength[:, None] * target)
        offset = np.asarray(spsolve(normal, right)).reshape(groups, 3)
    there = stretch >= 0
    result = nothing
    result[there] = offset[stretch[there]]
    return result


def _stretches(
    photographs: Photographs, position: Array
) -> tuple[Indices, tuple[Indices, Indices]]:
    """The stretch of each photograph, -1 where none, and which stretch follows which."""
    stretch = np.full(len(position), -1, np.int64)
    order = np.lexsort((photographs.index, photographs.sequence))
    order = order[(photographs.sequence[order] >= 0) & np.isfinite(position[order, 0])]
    if len(order) == 0:
        return stretch, (np.zeros(0, np.int64), np.zeros(0, np.int64))
    sequence = photographs.sequence[order]
    starts = np.flatnonzero(np.diff(sequence, prepend=-2))
    place = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    key = np.stack([sequence, place // _STRETCH], axis=1)
    drive, number = np.unique(key, axis=0, return_inverse=True)
    stretch[order] = number.reshape(-1)
    follows = np.flatnonzero(np.diff(drive[:, 0]) == 0)
    return stretch, (follows, follows + 1)


def _by_partners(position: Array, sigma: Array, pairs: Pairs) -> tuple[Array, Array]:
    """Positions with those still missing taken from where most inliers of the partners lie."""
    missing = ~np.isfinite(position[:, 0])
    if not missing.any() or missing.all():
        return position, sigma
    position, sigma = position.copy(), sigma.copy()
    to = np.concatenate([pairs.first, pairs.second])
    of = np.concatenate([pairs.second, pairs.first])
    weight = np.concatenate([pairs.inliers, pairs.inliers])
    usable = missing[to] & ~missing[of]
    order = np.lexsort((of[usable], to[usable]))
    to, of, weight = to[usable][order], of[usable][order], weight[usable][order]
    # All two partners of one image against each other.
    starts = np.searchsorted(to, to, "left")
    ends = np.searchsorted(to, to, "right")
    row = np.repeat(np.arange(len(to)), ends - starts)
    other = np.arange(len(row)) - np.repeat(
        np.cumsum(ends - starts) - (ends - starts), ends - starts
    )
    other += starts[row]
    near = np.linalg.norm(position[of[row]] - position[of[other]], axis=1) <= _SCENE_M
    support = np.bincount(row[near], weight[other[near]], len(to))
    best = np.lexsort((of, -support, to))
    images, where = np.unique(to[best], return_index=True)
    chosen = best[where]
    position[images] = position[of[chosen]]
    sigma[images] = np.hypot(sigma[of[chosen]], _SCENE_M / 2)
    return position, sigma


class _Graph:
    """Pairs as a graph: the partners of each photograph, and the pair of two photographs."""

    def __init__(self, size: int, pairs: Pairs) -> None:
        self.size, self.pairs = size, pairs
        count = len(pairs.first)
        ends = np.concatenate([pairs.first, pairs.second])
        order = np.argsort(ends, kind="stable")
        self.partner = np.concatenate([pairs.second, pairs.first])[order]
        self.pair = np.concatenate([np.arange(count), np.arange(count)])[order]
        self.start = np.searchsorted(ends[order], np.arange(size + 1))
        low = np.minimum(pairs.first, pairs.second)
        high = np.maximum(pairs.first, pairs.second)
        self.by_key = np.argsort(low * size + high, kind="stable")
        self.keys = (low * size + high)[self.by_key]
        known: Bools = np.asarray(np.isfinite(pairs.rotation).all(axis=1), bool)
        self.known = known
        quaternions = np.where(known[:, None], pairs.rotation, [1.0, 0.0, 0.0, 0.0])
        self.rotation = Rotation.from_quat(quaternions[:, [1, 2, 3, 0]])

    def around(self, images: Indices) -> tuple[Indices, Indices, Indices]:
        """(row of `images`, partner, pair) of every pair of each image."""
        count = self.start[images + 1] - self.start[images]
        row = np.repeat(np.arange(len(images)), count)
        place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        at = self.start[images][row] + place
        return row, self.partner[at], self.pair[at]

    def partners(self, trusted: Bools) -> Indices:
        """How many trusted pairs each photograph has."""
        ends = np.concatenate([self.pairs.first[trusted], self.pairs.second[trusted]])
        return np.bincount(ends, minlength=self.size)

    def find(self, a: Indices, b: Indices) -> Indices:
        """The pair of each two images, -1 where they have none."""
        key = np.minimum(a, b) * self.size + np.maximum(a, b)
        at = np.searchsorted(self.keys, key)
        inside = np.flatnonzero(at < len(self.keys))
        inside = inside[self.keys[at[inside]] == key[inside]]
        found = np.full(len(key), -1, np.int64)
        found[inside] = self.by_key[at[inside]]
        return found

    def _oriented(self, pair: Indices, start: Indices) -> Rotation:
        """The rotation of each pair, from `start` to the other end."""
        forward = self.pairs.first[pair] == start
        vectors = self.rotation[pair].as_rotvec()
        return Rotation.from_rotvec(np.where(forward[:, None], vectors, -vectors))

    def cycles(
        self, rows: Indices, trusted: Bools, distance: Array | None = None
    ) -> tuple[Indices, Indices]:
        """How many rotations around three photographs close, and do not, at each pair of `rows`.

        The other two sides are trusted pairs; with `distance` both shorter than the pair itself.
        """
        first, second = self.pairs.first[rows], self.pairs.second[rows]
        row, third, side = self.around(first)
        keep = trusted[side] & self.known[side] & (third != second[row]) & self.known[rows[row]]
        row, third, side = row[keep], third[keep], side[keep]
        other = self.find(third, second[row])
        there = np.flatnonzero(other >= 0)
        there = there[trusted[other[there]] & self.known[other[there]]]
        row, third, side, other = row[there], third[there], side[there], other[there]
        if distance is not None:
            longest = np.fmax(distance[side], distance[other])
            keep = ~(longest >= distance[rows[row]])
            row, third, side, other = row[keep], third[keep], side[keep], other[keep]
        if len(row) == 0:
            nothing = np.zeros(len(rows), np.int64)
            return nothing, nothing
        direct = self._oriented(rows[row], first[row])
        around = self._oriented(other, third) * self._oriented(side, first[row])
        angle = np.degrees((direct.inv() * around).magnitude())
        closes = angle <= _CYCLE_DEG
        return (
            np.bincount(row[closes], minlength=len(rows)),
            np.bincount(row[~closes], minlength=len(rows)),
        )

    def more_alike_than_nearer(self, rows: Indices, distance: Array, trusted: Bools) -> Bools:
        """Which pairs of `rows` have more inliers than the median of nearer ones at either end.

        What two photographs share falls with the distance between them.
        """
        ends = np.concatenate([self.pairs.first[rows], self.pairs.second[rows]])
        row, _, pair = self.around(ends)
        row %= len(rows) if len(rows) else 1
        nearer = trusted[pair] & (distance[pair] < distance[rows[row]] / 2)
        row, pair = row[nearer], pair[nearer]
        order = np.lexsort((self.pairs.inliers[pair], row))
        row, inliers = row[order], self.pairs.inliers[pair[order]]
        count = np.bincount(row, minlength=len(rows))
        start = np.cumsum(count) - count
        there = count > 0
        median = np.full(len(rows), np.inf)
        low = (start + (count - 1) // 2)[there]
        high = (start + count // 2)[there]
        median[there] = (inliers[low] + inliers[high]) / 2
        return np.asarray(self.pairs.inliers[rows] > median)
