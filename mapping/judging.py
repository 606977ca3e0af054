"""Which verified pairs are trusted.

Two-view geometry cannot distinguish two identical facades (perceptual aliasing), and a single pair
of such photographs folds a street onto itself. Four kinds of evidence can expose it: the GPS
positions, the places in the sequence, the pairs that both photographs have with others, and the
number of inliers, which decreases with distance. Pairs are judged over the whole collection, before
it is cut into tiles, because a tile sees only part of that evidence.

GPS has two errors: an offset that all positions along a stretch of a drive share (a street between
high houses may shift them by the same twenty metres), and independent noise. The offsets are
estimated first, so that pairs of a shifted drive are not taken for aliases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from vladmap.mapping.view_graph.table import BELIEVED

KEPT, FAR, ALIKE, TURNED, MISFIT, DEPTH, CONTRADICTED = range(7)
VERDICTS = ("kept", "far", "alike", "turned", "misfit", "depth", "contradicted")
"""The names of the verdicts. `kept`: the pair is trusted. `far`: GPS and sequences put the two too
far apart, and no third photograph confirms the pair. `alike`: it has more inliers than pairs so far
apart can have. `turned`: its rotation disagrees with those of the pairs around it.
The pose graph of the whole collection overrules them where it holds both photographs: `misfit`: the
pair's inliers lie off the epipolar lines of the graph's poses. `depth`: they lie on them, but at
depths that other pairs of the same photographs contradict. `contradicted`: it is a loop that the
odometry between its photographs, or many more loops between the same two stretches, contradict."""

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

# A near pair is rejected if at least so many cycles at it stay open and none closes.
_MIN_CYCLES = 4
# So many third photographs must confirm a pair that is far apart.
_MIN_WITNESSES = 2
# A photograph with fewer trusted pairs than this needs no confirmation for pairs within sight,
# which is so many metres beyond the error of GPS.
_FEW = 3
_SIGHT_M = 40.0
# A pair that the pose graph refuses is a misfit if a smaller share of its inliers fits its poses.
_FIT_SHARE = 0.6
# A loop is doubtful where odometry is so many standard deviations off, or where a consistent set of
# at least so many loops has so many times as many as agree with it. One that is must be true with
# this probability: of the sample city's loops, this leaves one false one of three, and costs 50 of
# 2,339 true ones.
_ODOMETRY_SIGMAS = 12.0
_LEAST_SET = 3
_TIMES = 5
_BELIEVED_IN_DOUBT = 0.97


@dataclass(frozen=True)
class Judgement:
    """The verdicts on m pairs of n photographs, and what they rest on.

    `verdict` (m,) is KEPT, FAR, ALIKE or TURNED; `distance` (m,) the distance in metres, NaN where
    unknown; `limit` (m,) the distance that the errors of both positions explain. `position` (n, 3)
    is the assumed position of each photograph, earth-centred: its GPS position less the GPS offset
    of its stretch, or one interpolated in the sequence, or that of its partners. `offset` (n, 3) is
    the offset that was subtracted.
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
    """Judge the verified pairs of TWO_VIEWS among rows of IMAGES; return a table of JUDGED."""
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
    """Return the trusted rows of JUDGED."""
    return judged.filter(pc.equal(judged["verdict"], VERDICTS[KEPT]))


def verdict_counts(judged: pa.Table) -> dict[str, int]:
    """Return the number of pairs of JUDGED with each verdict, by its name."""
    counts = {row["values"]: row["counts"] for row in judged["verdict"].value_counts().to_pylist()}
    return {name: int(counts.get(name, 0)) for name in VERDICTS}


def judge(photographs: Photographs, pairs: Pairs) -> Judgement:
    """Judge all verified pairs of a collection together.

    A cycle is three photographs with a pair between each two of them; it closes if the three
    rotations multiply to the identity. A pair is near if the distance of its photographs is within
    the error of their positions, or if they are close in one sequence. A near pair is trusted
    unless its cycles stay open. A pair further apart is trusted only if

    - at least two photographs that have trusted, shorter pairs with both of its photographs close
      a cycle with it, or one of its photographs has hardly any other trusted pair and the distance
      is within sight (`far` otherwise; `turned` for a pair whose distance the error of GPS still
      explains, but most of whose cycles stay open), and
    - it does not have more inliers than nearer pairs of the same photographs (`alike` otherwise).

    A pair without positions counts as near. Time and memory grow with the number of pairs and with
    the number of partners of each photograph.
    """
    position, sigma = fill_positions(photographs)
    offset = gps_offsets(photographs, pairs, position, sigma)
    position, sigma = positions_by_partners(position - offset, sigma, pairs)
    apart = position[pairs.first] - position[pairs.second]
    shift = offset[pairs.first] - offset[pairs.second]
    # Offsets that differ by more come from aliases: for such pairs the distance by GPS counts.
    shift[np.linalg.norm(shift, axis=1) <= MAX_OFFSET_M] = 0.0
    apart += shift
    distance = np.linalg.norm(apart, axis=1)
    error = np.hypot(sigma[pairs.first], sigma[pairs.second])
    limit = np.maximum(GPS_SIGMAS * error, MIN_DISTANCE_M)
    beside = are_close_in_sequence(photographs, pairs)

    # NaN compares as false: a pair of unknown distance counts as near.
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
    # Where photographs are sparse no third one can confirm a pair: being in sight is enough.
    lonely = graph.partners(trusted)[np.stack([pairs.first, pairs.second])[:, rows]].min(axis=0)
    in_sight = distance[rows] <= limit[rows] + _SIGHT_M
    confirmed |= (lonely < _FEW) & in_sight & (open_ <= closed)
    verdict[rows[far[rows] & ~confirmed]] = FAR
    verdict[rows[~far[rows] & (open_ > closed)]] = TURNED
    alike = graph.more_alike_than_nearer(rows, distance, trusted)
    verdict[rows[alike & (verdict[rows] == KEPT)]] = ALIKE
    return Judgement(verdict, distance, limit, position, offset)


def judge_by_fits(
    judgement: Judgement, pairs: Pairs, image_ids: pa.Array, fits: pa.Table
) -> Judgement:
    """Return the judgement with the verdict of the pose graph on all pairs that it holds.

    `image_ids` (n,) are those of the rows of `pairs`; `fits` are rows of view_graph.table.FITS.
    Pairs that are not among them keep their verdict.
    """
    row = rows_among(pairs, image_ids, fits)
    probability, share = (fits[name].to_numpy()[row >= 0] for name in ("probability", "fit_share"))
    doubtful = np.where(share >= _FIT_SHARE, DEPTH, MISFIT)
    verdict = judgement.verdict.copy()
    verdict[row[row >= 0]] = np.where(probability >= BELIEVED, KEPT, doubtful)
    return replace(judgement, verdict=verdict)


def judge_by_loops(
    judgement: Judgement,
    pairs: Pairs,
    image_ids: pa.Array,
    loops: pa.Table,
    fits: pa.Table | None,
) -> Judgement:
    """Return the judgement without the trust in loops that other loops or odometry contradict.

    `loops` are rows of view_graph.graph_tables.LOOP_FITS; `image_ids` and `fits` as in
    judge_by_fits. A pair that the fits give no probability is not believed in doubt.
    """
    row = rows_among(pairs, image_ids, loops)
    agreeing, largest, chosen, sigmas = (
        np.asarray(loops[name].to_numpy(), np.float64)
        for name in ("agreeing", "largest", "in_largest", "odometry_sigmas")
    )
    outvoted = (chosen == 0) & (largest >= _LEAST_SET) & (largest >= _TIMES * (agreeing + 1))
    doubtful = row[(row >= 0) & (outvoted | (sigmas > _ODOMETRY_SIGMAS))]
    probability = np.zeros(len(pairs.first))
    if fits is not None:
        at = rows_among(pairs, image_ids, fits)
        probability[at[at >= 0]] = fits["probability"].to_numpy()[at >= 0]
    wrong = doubtful[probability[doubtful] < _BELIEVED_IN_DOUBT]
    verdict = judgement.verdict.copy()
    verdict[wrong[verdict[wrong] == KEPT]] = CONTRADICTED
    return replace(judgement, verdict=verdict)


def rows_among(pairs: Pairs, image_ids: pa.Array, table: pa.Table) -> Indices:
    """The row in `pairs` of each row of a table of pairs, -1 for none.

    `image_ids` (n,) are those of the rows of `pairs`.
    """
    ends = [
        np.asarray(
            pc.fill_null(pc.index_in(table[f"image_id_{end}"].combine_chunks(), image_ids), -1),
            np.int64,
        )
        for end in "ab"
    ]
    return PairGraph(len(image_ids), pairs).find(*ends)
