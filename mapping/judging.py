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
from numpy.typing import NDArray

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.filled_positions import (
    GPS_SIGMAS,
    SCENE_M,
    fill_positions,
    positions_by_partners,
)
from vladmap.mapping.gps_offsets import MAX_OFFSET_M, MIN_DISTANCE_M, gps_offsets
from vladmap.mapping.pair_graph import PairGraph
from vladmap.mapping.photographs import (
    Pairs,
    Photographs,
    are_close_in_sequence,
    pairs_of,
    photographs_of,
)
from vladmap.mapping.two_view import inlier_counts

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
_MIN_CYCLES = 4
# Of three photographs, a third that confirms a far pair must see both, and so many are needed.
_MIN_WITNESSES = 2
# A photograph with fewer trusted partners than this is believed about others in sight.
_FEW = 3
_SIGHT_M = 40.0


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
    offset = gps_offsets(photographs, pairs, position, sigma)
    position, sigma = positions_by_partners(position - offset, sigma, pairs)
    apart = position[pairs.first] - position[pairs.second]
    shift = offset[pairs.first] - offset[pairs.second]
    # No offset is as large as that: pairs that say so are aliases.
    shift[np.linalg.norm(shift, axis=1) <= MAX_OFFSET_M] = 0.0
    apart += shift
    distance = np.linalg.norm(apart, axis=1)
    error = np.hypot(sigma[pairs.first], sigma[pairs.second])
    limit = np.maximum(GPS_SIGMAS * error, MIN_DISTANCE_M)
    beside = are_close_in_sequence(photographs, pairs)

    # NaN compares as false: what nothing is known of is near.
    far = ~beside & (distance > limit)
    unsure = ~beside & (distance > np.minimum(limit, SCENE_M))
    graph = PairGraph(len(position), pairs)
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
