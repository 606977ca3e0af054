"""The pose graph of a collection as tables: first poses, odometry, and how loops agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.spatial.transform import Rotation

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.photographs import stretches
from vladmap.mapping.view_graph.consistency import LoopSets, loop_sets
from vladmap.mapping.view_graph.odometry import (
    Odometry,
    are_loops,
    drive_odometry,
    pair_poses,
)
from vladmap.mapping.view_graph.pairs import MatchedPairs
from vladmap.mapping.view_graph.solve import Located, PoseGraph

GRAPH_POSES = pa.schema(
    [
        ("image_id", pa.string()),
        ("component", pa.int64()),
        ("metric", pa.bool_()),
        ("support", pa.int64()),
        *((name, pa.float64()) for name in ("x", "y", "z", "qw", "qx", "qy", "qz")),
        ("piece", pa.int64()),
        ("travelled_m", pa.float64()),
        *((name, pa.float64()) for name in ("odometry_x", "odometry_y", "odometry_z")),
    ]
)
"""Images that the pose graph holds. Position and rotation (camera_from_enu) are in the
east-north-up frame of the component, in metres; where it is not metric, of a guessed scale. `piece`
numbers the pieces of drives that odometry connects, null for none; `travelled_m` is the way along
it, and odometry_x to z where odometry alone puts the image, from the pose of the first of its
piece."""

LOOP_FITS = pa.schema(
    [
        ("image_id_a", pa.string()),
        ("image_id_b", pa.string()),
        ("agreeing", pa.int32()),
        ("in_largest", pa.bool_()),
        ("largest", pa.int32()),
        ("odometry_sigmas", pa.float32()),
    ]
)
"""Loops whose lengths and odometry are known: agreeing, chosen, largest and odometry_sigmas of
view_graph.consistency.LoopSets."""

_DECIMALS = 3


@dataclass(frozen=True)
class GraphTables:
    """A table of GRAPH_POSES and one of LOOP_FITS."""

    poses: pa.Table
    loops: pa.Table


def graph_tables(
    image_ids: list[str], images: Located, pairs: MatchedPairs, graph: PoseGraph
) -> GraphTables:
    """Chain the drives' odometry, test all loops against it and each other; see the schemas."""
    pose = pair_poses(pairs, graph)
    odometry = drive_odometry(images, pairs, pose)
    stretch, _ = stretches(images.sequence, images.index)
    rows = np.flatnonzero(are_loops(images.sequence, images.index, pairs.first, pairs.second))
    first, second = pairs.first[rows], pairs.second[rows]
    sets = loop_sets(odometry, stretch, first, second, pose[rows])
    ids = np.asarray(image_ids, object)
    return GraphTables(
        _poses(ids, graph, odometry), _loops(ids[first].tolist(), ids[second].tolist(), sets)
    )


def _poses(ids: Array, graph: PoseGraph, odometry: Odometry) -> pa.Table:
    rows = np.flatnonzero(graph.component >= 0)
    component = graph.component[rows].tolist()
    x, y, z, w = np.round(_quaternions(graph.rotation[rows]), 9).T
    piece = odometry.piece[rows]
    place = np.round(graph.position[rows], _DECIMALS)
    alone = np.round(odometry_in_enu(graph, odometry)[rows], _DECIMALS)
    columns = [
        ids[rows].tolist(), component, [graph.metric[name] for name in component],
        graph.support[rows], *place.T, w, x, y, z, pa.array(piece, mask=piece < 0),
        np.round(odometry.travelled[rows], _DECIMALS), *alone.T,
    ]  # fmt: skip
    return _table(columns, GRAPH_POSES)


def odometry_in_enu(graph: PoseGraph, odometry: Odometry) -> Array:
    """Where odometry alone puts n images, (n, 3) in the graph's frames; NaN where it holds none.

    Each piece begins with the graph's pose of its first image.
    """
    root = np.maximum(odometry.piece, 0)
    moved = np.einsum("nji,nj->ni", graph.rotation[root], odometry.centre)
    return np.where(odometry.piece[:, None] >= 0, graph.position[root] + moved, np.nan)


def _loops(first: list[str], second: list[str], sets: LoopSets) -> pa.Table:
    columns = [
        first, second, sets.agreeing, sets.chosen, sets.largest,
        pa.array(np.round(sets.odometry_sigmas, 2), from_pandas=True),
    ]  # fmt: skip
    return _table(columns, LOOP_FITS).filter(pa.array(sets.group >= 0))


def _quaternions(rotation: Array) -> Array:
    return Rotation.from_matrix(rotation).as_quat() if len(rotation) else np.zeros((0, 4))


def _table(columns: list[Array | list[str] | Indices | pa.Array], schema: pa.Schema) -> pa.Table:
    arrays = [
        values.cast(field.type) if isinstance(values, pa.Array) else pa.array(values, field.type)
        for values, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
