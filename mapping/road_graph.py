"""The visual road graph: photographs of the map, joined where one can go from one to the next.

A camera went from each photograph of a drive to the next one. Drives are joined where a trusted
pair says that two of their photographs show the same surface from nearly the same place. Nothing
joins photographs across a jump in time or space, or of two models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vladmap.geodesy.wgs84 import geodetic_to_enu
from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.check import rotations
from vladmap.mapping.gps import choose_origin
from vladmap.mapping.groups import group_medians

POSE_COLUMNS = [
    "image_id", "name", "uri", "model", "latitude", "longitude", "altitude",
    "qw", "qx", "qy", "qz", "predicted_error_m", "doubt",
]  # fmt: skip
IMAGE_COLUMNS = ["image_id", "sequence_id", "sequence_index", "captured_at"]
PAIR_COLUMNS = ["image_id_a", "image_id_b", "verdict"]

# Photographs of a drive join up to so many of its usual steps, within these bounds in metres.
_USUAL_STEPS = 4.0
_STEP_M = (25.0, 100.0)
# After a longer pause the camera may have been elsewhere, unless it is where it was.
_PAUSE_S = 300.0
_SAME_PLACE_M = 5.0
# Photographs of a trusted pair join up to so many metres, and not along one stretch of a drive.
_CROSSING_M = 15.0
_APART_IN_DRIVE = 10
# Changing from one drive to another costs as much as so many metres: routes do not zigzag.
_CHANGE_M = 2.0


@dataclass(frozen=True)
class RoadGraph:
    """n photographs that may be used, by rising image_id, and m ways between them.

    `table` has POSE_COLUMNS and IMAGE_COLUMNS of each; `enu` (n, 3) are their places in metres
    east, north and up of `origin`. Ways join `first` and `second` (m,); `crossing` (m,) says of
    which a trusted pair is the reason, and not a drive. `without_place` and `doubtful` count the
    poses that are left out.
    """

    table: pa.Table
    origin: tuple[float, float, float]
    enu: Array
    first: Indices
    second: Indices
    crossing: Bools
    without_place: int = 0
    doubtful: int = 0

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each image_id."""
        return {image: row for row, image in enumerate(self.table["image_id"].to_pylist())}

    @cached_property
    def error(self) -> Array:
        """The predicted error of each photograph in metres, (n,); NaN where it is not known."""
        return _floats(self.table, "predicted_error_m")

    @cached_property
    def view(self) -> Array:
        """The direction that each camera looks in, (n,) degrees clockwise from north."""
        axis = rotations(np.stack([_floats(self.table, f"q{name}") for name in "wxyz"], axis=1))
        return np.asarray(np.degrees(np.arctan2(axis[:, 2, 0], axis[:, 2, 1])) % 360.0)

    @cached_property
    def network(self) -> nx.Graph:
        """The graph: nodes are rows, edges have `length` and `cost`.

        `length` is metres, with a little more for a change of drives; `cost` is that times the
        mean predicted error of both ends.
        """
        graph = nx.Graph()
        graph.add_nodes_from(range(len(self.enu)))
        length = np.linalg.norm(self.enu[self.first] - self.enu[self.second], axis=1)
        length += np.where(self.crossing, _CHANGE_M, 0.0)
        cost = length * (self.error[self.first] + self.error[self.second]) / 2
        graph.add_edges_from(
            (a, b, {"length": metres, "cost": each})
            for a, b, metres, each in zip(
                self.first.tolist(), self.second.tolist(), length.tolist(), cost.tolist(),
                strict=True,
            )
        )  # fmt: skip
        return graph

    @cached_property
    def component(self) -> Indices:
        """The connected component of each photograph, (n,); 0 has most."""
        parts = nx.connected_components(self.network)
        label = np.zeros(len(self.enu), np.int64)
        largest_first = sorted(parts, key=lambda part: (-len(part), min(part)))
        for number, members in enumerate(largest_first):
            label[sorted(members)] = number
        return label


def road_graph(poses: pa.Table, images: pa.Table, pairs: pa.Table) -> RoadGraph:
    """Return the road graph of a map.

    `poses` has POSE_COLUMNS, `images` IMAGE_COLUMNS of at least these photographs, `pairs`
    PAIR_COLUMNS. Left out are photographs that GPS gives no place and those that must not be used.
    """
    placed = poses.filter(pc.is_valid(poses["latitude"]))
    usable = placed.filter(pc.is_null(placed["doubt"]))
    table = usable.select(POSE_COLUMNS).join(
        images.select(IMAGE_COLUMNS), "image_id", join_type="left outer"
    )
    table = table.sort_by("image_id").combine_chunks()
    place = np.stack([_floats(table, name) for name in ("latitude", "longitude", "altitude")], 1)
    origin = choose_origin(*place.T) if len(place) else (0.0, 0.0, 0.0)
    place[:, 2] = np.where(np.isfinite(place[:, 2]), place[:, 2], origin[2])
    enu = geodetic_to_enu(place, origin).reshape(-1, 3)
    along = _along_drives(table, enu)
    across = _crossings(table, enu, pairs)
    first, second = np.concatenate([along, across], axis=1)
    crossing = np.arange(len(first)) >= along.shape[1]
    return RoadGraph(
        table,
        origin,
        enu,
        first,
        second,
        crossing,
        poses.num_rows - placed.num_rows,
        placed.num_rows - usable.num_rows,
    )


def _along_drives(table: pa.Table, enu: Array) -> Indices:
    """Return the photographs that follow each other in a drive, (2, k)."""
    drive = _codes(table, "sequence_id")
    model = table["model"].to_numpy().astype(np.int64)
    index = np.nan_to_num(_floats(table, "sequence_index"))
    microseconds = pc.cast(table["captured_at"], pa.int64()).combine_chunks()
    seconds = _floats(pa.table({"t": microseconds}), "t") / 1e6
    order = np.lexsort((index, model, drive))
    order = order[drive[order] >= 0]
    before, after = order[:-1], order[1:]
    same = (drive[before] == drive[after]) & (model[before] == model[after])
    before, after = before[same], after[same]
    step = np.linalg.norm(enu[after] - enu[before], axis=1)
    of_drive = drive[before]
    usual = group_medians(step, of_drive, int(drive.max(initial=-1)) + 1)
    limit = np.clip(_USUAL_STEPS * usual[of_drive], *_STEP_M)
    pause = np.nan_to_num(seconds[after] - seconds[before])
    joined = (step <= limit) & ((np.abs(pause) <= _PAUSE_S) | (step <= _SAME_PLACE_M))
    return np.stack([before[joined], after[joined]])


def _crossings(table: pa.Table, enu: Array, pairs: pa.Table) -> Indices:
    """Return the photographs that trusted pairs join, (2, k)."""
    ids = table["image_id"].combine_chunks()
    trusted = pairs.filter(pc.fill_null(pc.equal(pairs["verdict"], "kept"), False))
    ends = [
        pc.fill_null(pc.index_in(trusted[f"image_id_{end}"], value_set=ids), -1)
        .to_numpy()
        .astype(np.int64)
        for end in "ab"
    ]
    first, second = (end[(ends[0] >= 0) & (ends[1] >= 0)] for end in ends)
    drive, model = _codes(table, "sequence_id"), table["model"].to_numpy()
    index = np.nan_to_num(_floats(table, "sequence_index"))
    near = np.linalg.norm(enu[first] - enu[second], axis=1) <= _CROSSING_M
    apart = (drive[first] != drive[second]) | (drive[first] < 0)
    apart |= np.abs(index[first] - index[second]) > _APART_IN_DRIVE
    joined = near & apart & (model[first] == model[second])
    order = np.lexsort((second[joined], first[joined]))
    return np.stack([first[joined][order], second[joined][order]])


def _codes(table: pa.Table, name: str) -> Indices:
    """Return a number for each value of a column of words, -1 for null."""
    codes = table[name].combine_chunks().dictionary_encode().indices
    return np.asarray(codes.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)


def _floats(table: pa.Table, name: str) -> Array:
    column = table[name].combine_chunks().cast(pa.float64())
    return np.array(column.fill_null(np.nan).to_numpy(zero_copy_only=False))
