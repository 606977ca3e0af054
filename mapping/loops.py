"""Loops, kept and rejected, and the drift of the drives that they correct, as published tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.judged_pairs import JudgedPairs
from vladmap.mapping.judging import KEPT
from vladmap.mapping.verdicts import judgements, known_values, rows_in
from vladmap.mapping.view_graph.odometry import are_loops
from vladmap.schemas.loop_tables import DRIVES, LOOPS

IMAGE_COLUMNS = ["image_id", "sequence_id", "sequence_index", "captured_at"]
"""Columns of IMAGES that these tables need."""

_LOOP_FITS = ("agreeing", "in_largest", "largest", "odometry_sigmas")


def loops_table(
    judged: JudgedPairs,
    images: pa.Table,
    fits: pa.Table | None,
    loop_fits: pa.Table,
    graph_poses: pa.Table,
) -> pa.Table:
    """Return a table of LOOPS: each verified pair of two drives, or far apart in one.

    `images` has IMAGE_COLUMNS, sorted by image_id as `judged` is; `fits`, `loop_fits` and
    `graph_poses` are of view_graph.table.FITS, graph_tables.LOOP_FITS and GRAPH_POSES.
    """
    pairs, sequence = judged.pairs, judged.sequence
    rows = np.flatnonzero(are_loops(sequence, judged.index, pairs.first, pairs.second))
    first, second = pairs.first[rows], pairs.second[rows]
    ids = pa.array(judged.image_ids, pa.string())
    columns = {
        "image_id_a": ids.take(pa.array(first)),
        "image_id_b": ids.take(pa.array(second)),
        "kept": pa.array(judged.judgement.verdict[rows] == KEPT),
        "inliers": pa.array(pairs.inliers[rows].astype(np.int32)),
        "same_drive": pa.array(sequence[first] == sequence[second]),
    }
    said = judgements(judged, fits).take(pa.array(rows))
    columns |= {name: said[name] for name in ("verdict", "probability", "distance_m")}
    piece, travelled = _along(judged, graph_poses)
    gap = np.where(piece[first] == piece[second], travelled[first] - travelled[second], np.nan)
    gap[piece[first] < 0] = np.nan
    columns["gap_m"] = known_values(np.abs(gap))
    seconds = _seconds(images)
    columns["gap_s"] = known_values(np.abs(seconds[first] - seconds[second]))
    at = rows_in(judged, loop_fits)[rows]
    known = pa.array(np.maximum(at, 0), mask=at < 0)
    columns |= {name: loop_fits[name].combine_chunks().take(known) for name in _LOOP_FITS}
    arrays = [
        column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        for column in (columns[field.name] for field in LOOPS)
    ]
    cast = [array.cast(field.type) for array, field in zip(arrays, LOOPS, strict=True)]
    return pa.Table.from_arrays(cast, schema=LOOPS).sort_by(
        [("image_id_a", "ascending"), ("image_id_b", "ascending")]
    )


def drives_table(images: pa.Table, graph_poses: pa.Table) -> pa.Table:
    """Return a table of DRIVES: what odometry alone drifts from the pose graph, drive by drive.

    `images` has IMAGE_COLUMNS, without duplicates; `graph_poses` are of graph_tables.GRAPH_POSES.
    """
    held = images.filter(pc.is_valid(images["sequence_id"])).join(graph_poses, "image_id")
    held = held.sort_by([("sequence_id", "ascending"), ("sequence_index", "ascending")])
    names, start, count = np.unique(
        np.asarray(held["sequence_id"].to_numpy(), str), return_index=True, return_counts=True
    )
    piece = np.asarray(pc.fill_null(held["piece"], -1).to_numpy(), np.int64)
    chained = np.zeros(len(names), np.int64)
    figures = np.full((len(names), 2), np.nan)
    metric: list[bool | None] = [None] * len(names)
    place = _columns(held, "x", "y", "z")
    alone = _columns(held, "odometry_x", "odometry_y", "odometry_z")
    way = _columns(held, "travelled_m")[:, 0]
    for number, (begin, size) in enumerate(zip(start.tolist(), count.tolist(), strict=True)):
        mine = begin + np.flatnonzero(piece[begin : begin + size] >= 0)
        if len(mine) == 0:
            continue
        pieces, sizes = np.unique(piece[mine], return_counts=True)
        mine = mine[piece[mine] == pieces[np.argmax(sizes)]]
        last = mine[-1]
        chained[number] = len(mine)
        figures[number] = way[last], np.linalg.norm(alone[last] - place[last])
        metric[number] = bool(held["metric"][int(last)].as_py())
    length, drift = figures.T
    share = drift / np.where(length > 0, length, np.nan)
    columns = [
        names.tolist(), count, chained,
        *map(known_values, (length, drift, share)), metric,
    ]  # fmt: skip
    arrays = [
        column.cast(field.type) if isinstance(column, pa.Array) else pa.array(column, field.type)
        for column, field in zip(columns, DRIVES, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=DRIVES)


def _along(judged: JudgedPairs, graph_poses: pa.Table) -> tuple[Indices, Array]:
    """The piece of each image, -1 for none, and the metres along it."""
    at = pc.index_in(graph_poses["image_id"], pa.array(judged.image_ids, pa.string()))
    rows = np.asarray(pc.fill_null(at, -1).to_numpy(), np.int64)
    count = len(judged.image_ids)
    piece, travelled = np.full(count, -1, np.int64), np.zeros(count)
    known = np.asarray(pc.fill_null(graph_poses["piece"], -1).to_numpy(), np.int64)
    piece[rows[rows >= 0]] = known[rows >= 0]
    travelled[rows[rows >= 0]] = graph_poses["travelled_m"].to_numpy()[rows >= 0]
    return piece, travelled


def _seconds(images: pa.Table) -> Array:
    microseconds = pc.cast(images["captured_at"], pa.int64())
    return np.asarray(pc.cast(microseconds, pa.float64()).to_numpy(), np.float64) / 1e6


def _columns(table: pa.Table, *names: str) -> Array:
    values = [np.asarray(pc.cast(table[name], pa.float64()).to_numpy()) for name in names]
    return np.stack(values, axis=1) if table.num_rows else np.zeros((0, len(names)))
