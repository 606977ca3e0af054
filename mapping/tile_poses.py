"""First poses of the images of one tile, from its trusted pairs, its drives and GPS."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vladmap.features.base import LocalFeatures
from vladmap.geodesy.wgs84 import enu_to_geodetic, geodetic_to_enu
from vladmap.mapping.camera import Camera
from vladmap.mapping.posed_mapper import FirstPose
from vladmap.mapping.two_view import TwoView
from vladmap.mapping.view_graph.pairs import matched_pairs
from vladmap.mapping.view_graph.solve import PoseGraph, solve_pose_graph
from vladmap.mapping.view_graph.table import MIN_SUPPORT, located

# Sets of images that nothing places on Earth are put so far from all others, in metres.
_APART_M = 10_000.0


def first_poses(
    images: pa.Table,
    views: list[TwoView],
    features: Mapping[str, LocalFeatures],
    cameras: Mapping[str, Camera],
    gps_sigma_m: float,
) -> dict[str, FirstPose]:
    """Return first poses, by image_id, of the images that pairs hold, all in one metric frame.

    `images` has view_graph.table.IMAGE_COLUMNS; `cameras` is the camera of each image_id.
    """
    ids = sorted(features)
    inside = pc.is_in(images["image_id"], value_set=pa.array(ids, pa.string()))
    table = images.filter(inside).sort_by("image_id")
    pairs = matched_pairs(
        ids, views, lambda each: features[each].keypoints[:, :2].astype(np.float64), cameras
    )
    return _in_one_frame(ids, solve_pose_graph(located(table, gps_sigma_m), pairs))


def _in_one_frame(ids: list[str], graph: PoseGraph) -> dict[str, FirstPose]:
    """The poses in the frame of the largest set that GPS places; the rest lie far beside it."""
    names, counts = np.unique(graph.component[graph.component >= 0], return_counts=True)
    largest_first = names[np.lexsort((names, -counts))].tolist()
    placed = [name for name in largest_first if graph.metric[name]]
    poses: dict[str, FirstPose] = {}
    if not largest_first:
        return poses
    origin = graph.origin[(placed or largest_first)[0]]
    beside = 0.0
    for name in largest_first:
        rows = np.flatnonzero((graph.component == name) & (graph.support >= MIN_SUPPORT))
        if len(rows) == 0:
            continue
        place = graph.position[rows]
        if graph.metric[name]:
            place = geodetic_to_enu(enu_to_geodetic(place, graph.origin[name]), origin)
        else:
            beside += _APART_M
            place = place + [0.0, 0.0, beside]
        for row, centre in zip(rows.tolist(), place, strict=True):
            poses[ids[row]] = FirstPose(graph.rotation[row], centre)
    return poses
