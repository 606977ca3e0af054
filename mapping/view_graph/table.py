"""How the verified pairs of a collection fit its pose graph, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.camera import Camera
from vladmap.mapping.photographs import photographs_of
from vladmap.mapping.two_view import TwoView
from vladmap.mapping.view_graph.fit import PairFit, fit_pairs
from vladmap.mapping.view_graph.graph_tables import GraphTables, graph_tables
from vladmap.mapping.view_graph.pairs import MatchedPairs, matched_pairs
from vladmap.mapping.view_graph.solve import Located, PoseGraph, solve_pose_graph

FITS = pa.schema(
    [
        ("image_id_a", pa.string()),
        ("image_id_b", pa.string()),
        ("probability", pa.float32()),
        ("distance_m", pa.float32()),
        ("fit_share", pa.float32()),
        ("depth_agreement", pa.float32()),
        ("depth_compared", pa.int32()),
        ("depth_usual", pa.float32()),
    ]
)
"""Pairs both of whose images the pose graph holds: the probability that they see the same surface,
the distance of the images in the graph, and share, agreement, compared and placed of
view_graph.fit.PairFit."""

IMAGE_COLUMNS = [
    "image_id", "latitude", "longitude", "altitude", "gps_accuracy_m",
    "sequence_id", "sequence_index",
]  # fmt: skip
"""Columns of IMAGES that the pose graph needs."""

MIN_SUPPORT = 2
"""A pose of the graph is used if so many pairs agree with it."""

JUDGED_IMAGES = 100
"""The pose graph judges pairs of connected sets of so many images. In a small set few pairs share a
keypoint, and poses are as uncertain as the pairs that they rest on: of 29 photographs of a real
street it refused 31 of 112 pairs, 28 were mapped and not 29, and the median distance from GPS rose
from 3.4 to 4.8 m."""

BELIEVED = 0.9
"""A pair that the pose graph judges is trusted if it is true with this probability."""

# The graph judges a set if it believes so much of the pairs that are surely true: of photographs at
# most so many places apart in a drive, with so many inliers, where there are so many of them: one
# photograph at the end of a drive, whose pose too few pairs support, has three. In rendered cities
# it believes 98 % of them and more, with wrong focal lengths, too.
_SURE_SHARE = 0.9
_SURE_PLACES = 3
_SURE_INLIERS = 50
_SURE_PAIRS = 30

# Fits are kept to so many decimals: the last bits of a float say nothing.
_DECIMALS = 3


def located(images: pa.Table, gps_sigma_m: float) -> Located:
    """What rows of IMAGES say of their places; `gps_sigma_m` is for positions that state none."""
    known = photographs_of(images, gps_sigma_m)
    latitude, longitude, altitude = (
        np.asarray(images[name].to_numpy(), np.float64)
        for name in ("latitude", "longitude", "altitude")
    )
    return Located(latitude, longitude, altitude, known.sigma, known.sequence, known.index)


@dataclass(frozen=True)
class Fitted:
    """What the pose graph of a collection says: `fits` of FITS, and GraphTables.

    `contradicting` counts the pairs of sets whose graph contradicts their drives: it judges none
    of them.
    """

    fits: pa.Table
    graph: GraphTables
    contradicting: int


def fit_tables(
    images: pa.Table,
    views: list[TwoView],
    keypoints: Callable[[str], Array],
    cameras: Mapping[str, Camera],
    gps_sigma_m: float,
    least: int = JUDGED_IMAGES,
) -> Fitted:
    """Solve the pose graph of the connected sets of at least `least` images, and judge by it.

    `images` has IMAGE_COLUMNS, sorted by image_id; `views` are verified pairs of its images.
    """
    ids = images["image_id"].to_pylist()
    pairs = matched_pairs(ids, views, keypoints, cameras)
    where = located(images, gps_sigma_m)
    graph = solve_pose_graph(where, pairs, least)
    rows = held_pairs(graph, pairs)
    if len(rows) == 0:
        return Fitted(FITS.empty_table(), graph_tables(ids, where, pairs, graph), 0)
    fit = fit_pairs(only(pairs, rows), np.nan_to_num(graph.rotation), np.nan_to_num(graph.position))
    probability = fit.probability(pairs.inliers[rows])
    known = agrees_with_drives(graph, pairs, where, rows[probability >= BELIEVED])[rows]
    table = _table(images, pairs, rows, fit, probability).filter(pa.array(known))
    ends = np.concatenate([pairs.first[rows[~known]], pairs.second[rows[~known]]])
    graph = without_sets(graph, np.unique(graph.component[ends]))
    return Fitted(table, graph_tables(ids, where, pairs, graph), int((~known).sum()))


def without_sets(graph: PoseGraph, names: Indices) -> PoseGraph:
    """The graph without the poses of some of its sets of images, as if it had not solved them."""
    gone = np.isin(graph.component, names)
    return replace(
        graph,
        component=np.where(gone, -1, graph.component),
        position=np.where(gone[:, None], np.nan, graph.position),
        rotation=np.where(gone[:, None, None], np.nan, graph.rotation),
        support=np.where(gone, 0, graph.support),
    )


def agrees_with_drives(
    graph: PoseGraph, pairs: MatchedPairs, where: Located, believed: Indices
) -> Bools:
    """Whether the set of each pair (m,) has a pose graph that believes its drives' own pairs.

    `believed` are the rows of the pairs that it takes for true. Photographs that follow each other
    in a drive and share many matches see the same surfaces. Where the graph refuses such pairs, its
    poses are wrong, for example for want of a camera's true focal length, and so are its other
    verdicts.
    """
    one, other = pairs.first, pairs.second
    sure = (where.sequence[one] == where.sequence[other]) & (where.sequence[one] >= 0)
    sure &= np.abs(where.index[one] - where.index[other]) <= _SURE_PLACES
    sure &= (pairs.inliers >= _SURE_INLIERS) & (graph.component[one] >= 0)
    held = np.zeros(len(pairs), bool)
    held[believed] = True
    name = graph.component[one] + 1
    total = np.bincount(name[sure], minlength=pairs.images + 1)
    agreeing = np.bincount(name[sure & held], minlength=pairs.images + 1)
    wrong = (total >= _SURE_PAIRS) & (agreeing < _SURE_SHARE * total)
    return np.asarray(~wrong[name])


def held_pairs(graph: PoseGraph, pairs: MatchedPairs) -> Indices:
    """The rows of the pairs both of whose images have poses, in one set, that pairs support."""
    sure = (graph.component >= 0) & (graph.support >= MIN_SUPPORT)
    together = graph.component[pairs.first] == graph.component[pairs.second]
    return np.flatnonzero(sure[pairs.first] & sure[pairs.second] & together)


def only(pairs: MatchedPairs, rows: Indices) -> MatchedPairs:
    """Some rows of pairs, sorted, with their inliers."""
    place = np.full(len(pairs), -1, np.int64)
    place[rows] = np.arange(len(rows))
    used = np.flatnonzero(place[pairs.pair] >= 0)
    return MatchedPairs(
        pairs.images,
        pairs.first[rows],
        pairs.second[rows],
        pairs.rotation[rows],
        pairs.direction[rows],
        pairs.focal_px[rows],
        place[pairs.pair[used]],
        pairs.key_first[used],
        pairs.key_second[used],
        pairs.ray_first[used],
        pairs.ray_second[used],
    )


def _table(
    images: pa.Table, pairs: MatchedPairs, rows: Indices, fit: PairFit, probability: Array
) -> pa.Table:
    ids = np.asarray(images["image_id"].to_pylist(), object)
    columns = [
        ids[pairs.first[rows]].tolist(),
        ids[pairs.second[rows]].tolist(),
        np.round(probability, _DECIMALS),
        np.round(fit.distance, _DECIMALS),
        np.round(fit.share, _DECIMALS),
        np.round(fit.agreement, _DECIMALS),
        fit.compared,
        np.round(fit.placed, _DECIMALS),
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, FITS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=FITS)
