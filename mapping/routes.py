"""The best way through the visual road graph, and what to do on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from vladmap.geodesy.wgs84 import enu_to_geodetic, geodetic_to_enu
from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.road_graph import RoadGraph
from vladmap.schemas.rejects import UserError

LENGTH, QUALITY = "length", "quality"
BY = (LENGTH, QUALITY)
"""What a route is shortest by: metres, or metres times the error of localisation on them."""

REACH_M = 50.0
"""A start or end may be so far from the nearest photograph."""

START, LEFT, RIGHT, STRAIGHT, BACK, END = "start", "left", "right", "straight", "back", "end"
WORDS = {
    START: "start", LEFT: "turn left", RIGHT: "turn right", STRAIGHT: "straight on",
    BACK: "turn back", END: "arrive",
}  # fmt: skip
"""Instructions for people."""

# The direction of travel is that of so many metres before and behind a place.
_BASE_M = 12.0
_SAMPLE_M = 1.0
_TURN_DEG, _BACK_DEG = 40.0, 150.0
# A crossing that is passed straight on is told once in so many metres.
_TOLD_EACH_M = 25.0


@dataclass(frozen=True)
class Place:
    """Where a route begins or ends: a photograph, or a point on earth in degrees."""

    image_id: str | None = None
    latitude: float = 0.0
    longitude: float = 0.0

    def __str__(self) -> str:
        return self.image_id or f"{self.latitude:.6f},{self.longitude:.6f}"


@dataclass(frozen=True)
class Instruction:
    """What to do at the photograph in place `step` of the route, `at_m` metres from its start."""

    action: str
    step: int
    at_m: float


@dataclass(frozen=True)
class Route:
    """k photographs, by rows of `graph`, from start to end.

    `along` (k,) are metres from the start, `heading` (k,) the direction of travel in degrees
    clockwise from north. `start_off_m` and `end_off_m` are the distances of the first and last from
    what was asked for. `by` is one of BY.
    """

    graph: RoadGraph
    rows: Indices
    along: Array
    heading: Array
    instructions: list[Instruction]
    start_off_m: float
    end_off_m: float
    by: str

    @property
    def length_m(self) -> float:
        """Return the length of the route in metres."""
        return float(self.along[-1])

    def errors(self) -> Array:
        """Return the predicted errors of its photographs in metres, (k,)."""
        return self.graph.error[self.rows]

    def facts(self) -> dict[str, Any]:
        """Return the route as a JSON object."""
        errors = self.errors()[np.isfinite(self.errors())]
        return {
            "by": self.by,
            "length_m": round(self.length_m, 2),
            "photographs": len(self.rows),
            "predicted_error_mean_m": round(float(errors.mean()), 4) if len(errors) else None,
            "predicted_error_max_m": round(float(errors.max()), 4) if len(errors) else None,
            "start_off_m": round(self.start_off_m, 2),
            "end_off_m": round(self.end_off_m, 2),
            "instructions": [
                {"action": each.action, "at_m": round(each.at_m, 2), **self.photograph(each.step)}
                for each in self.instructions
            ],
            "steps": [self.photograph(step) for step in range(len(self.rows))],
        }

    def photograph(self, step: int) -> dict[str, Any]:
        """Return what is known of a photograph of the route, as a JSON object."""
        row = int(self.rows[step])
        known = self.graph.table.slice(row, 1).to_pylist()[0]
        return {
            **{name: known[name] for name in ("image_id", "name", "uri", "sequence_id")},
            **{name: known[name] for name in ("latitude", "longitude", "altitude")},
            "predicted_error_m": known["predicted_error_m"],
            "distance_m": round(float(self.along[step]), 2),
            "heading_deg": round(float(self.heading[step]), 1),
            "camera_heading_deg": round(float(self.graph.view[row]), 1),
        }


def find_route(
    graph: RoadGraph, start: Place, end: Place, by: str = LENGTH, reach_m: float = REACH_M
) -> Route:
    """Return the shortest route between two places.

    A point on earth is that of the nearest photograph within `reach_m`; of several it is one from
    which the other place can be reached. Streets may be driven in both directions. Raises UserError
    where there is no photograph so near, none that may be used, no way between the two, and for
    BY quality where predicted errors are not known.
    """
    if len(graph.enu) == 0:
        raise UserError("no photograph of the map has a place and may be used: there are no roads")
    if by == QUALITY and not np.isfinite(graph.error).all():
        raise UserError(
            "--by quality needs the predicted error of every photograph, and this map lacks some: "
            "run `vladmap merge` again"
        )
    starts, ends = (
        _candidates(graph, place, name, reach_m)
        for place, name in ((start, "--from"), (end, "--to"))
    )
    first, last = _connected(graph, starts, ends)
    weight = "length" if by == LENGTH else "cost"
    rows = np.array(nx.shortest_path(graph.network, first[0], last[0], weight), np.int64)
    return _described(graph, rows, first[1], last[1], by)


_Candidates = list[tuple[int, float]]


def _candidates(graph: RoadGraph, place: Place, name: str, reach_m: float) -> _Candidates:
    """Return rows of photographs at a place and their distances, the nearest first."""
    if place.image_id is not None:
        return [(graph.row_of[place.image_id], 0.0)]
    point = [[place.latitude, place.longitude, graph.origin[2]]]
    away = graph.enu[:, :2] - geodetic_to_enu(point, graph.origin).reshape(-1, 3)[0, :2]
    distance = np.linalg.norm(away, axis=1)
    order = np.argsort(distance, kind="stable")
    near = order[distance[order] <= reach_m]
    if len(near) == 0:
        nearest = int(order[0])
        raise UserError(
            f"{name} {place} is {_metres(float(distance[nearest]))} from the nearest photograph of "
            f"the map ({graph.table['name'][nearest]}), over --reach-m {reach_m:g}"
        )
    return [(int(row), float(distance[row])) for row in near]


def _connected(
    graph: RoadGraph, starts: _Candidates, ends: _Candidates
) -> tuple[tuple[int, float], tuple[int, float]]:
    """Return the nearest start and end of one component, with the least distance in all."""
    nearest: list[dict[int, tuple[int, float]]] = []
    for candidates in (starts, ends):
        found: dict[int, tuple[int, float]] = {}
        for each in candidates:
            found.setdefault(int(graph.component[each[0]]), each)
        nearest.append(found)
    common = nearest[0].keys() & nearest[1].keys()
    if not common:
        parts = [_component_words(graph, candidates[0][0]) for candidates in (starts, ends)]
        raise UserError(
            f"no way leads from --from to --to: the first is in {parts[0]}, the second in "
            f"{parts[1]}; no drive and no trusted pair joins the two"
        )
    best = min(common, key=lambda part: (nearest[0][part][1] + nearest[1][part][1], part))
    return nearest[0][best], nearest[1][best]


def _component_words(graph: RoadGraph, row: int) -> str:
    number = int(graph.component[row])
    members = np.flatnonzero(graph.component == number)
    drives = {graph.table["sequence_id"][int(member)].as_py() for member in members}
    total = int(graph.component.max()) + 1
    first = graph.table["name"][int(members[0])].as_py()
    count = f"{len(members):,} photograph{'s' if len(members) != 1 else ''}"
    return f"part {number + 1} of {total} ({count}, drives {len(drives)}, such as {first})"


def _metres(value: float) -> str:
    return f"{value:.0f} m" if value < 1000 else f"{value / 1000:,.1f} km"


def _described(graph: RoadGraph, rows: Indices, start_off: float, end_off: float, by: str) -> Route:
    place = graph.enu[rows]
    step = np.linalg.norm(np.diff(place, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(step)])
    heading, turn = headings_and_turns(place[:, :2], along)
    instructions = [Instruction(START, 0, 0.0)]
    if len(rows) > 1:
        instructions += _turns(graph, rows, along, turn)
        instructions.append(Instruction(END, len(rows) - 1, float(along[-1])))
    return Route(graph, rows, along, heading, instructions, start_off, end_off, by)


def headings_and_turns(place: Array, along: Array) -> tuple[Array, Array]:
    """Return the direction of travel at each place of a way, and how far it turns there, (k,).

    `place` (k, 2) are metres east and north, `along` (k,) metres from the start. Both are degrees,
    directions clockwise from north and turns positive to the right; both are over 12 m before and
    behind, so that a change of lane is no turn.
    """
    if along[-1] < _SAMPLE_M:
        return np.zeros(len(along)), np.zeros(len(along))

    def at(metres: Array) -> Array:
        return np.stack([np.interp(metres, along, axis) for axis in place.T], axis=1)

    behind, ahead = at(along - _BASE_M), at(along + _BASE_M)
    coming, going = place - behind, ahead - place
    angles = [np.degrees(np.arctan2(way[:, 0], way[:, 1])) for way in (coming, going)]
    still = [np.linalg.norm(way, axis=1) < _SAMPLE_M for way in (coming, going)]
    turn = (angles[1] - angles[0] + 180.0) % 360.0 - 180.0
    through = ahead - behind
    heading = np.degrees(np.arctan2(through[:, 0], through[:, 1])) % 360.0
    return heading, np.where(still[0] | still[1], 0.0, turn)


def _turns(graph: RoadGraph, rows: Indices, along: Array, turn: Array) -> list[Instruction]:
    """Return the turns of a route, and the crossings that it passes straight on, in their order."""
    found: list[Instruction] = []
    for step in np.argsort(-np.abs(turn), kind="stable").tolist():
        if abs(turn[step]) < _TURN_DEG:
            break
        if all(abs(along[step] - each.at_m) > 2 * _BASE_M for each in found):
            action = BACK if abs(turn[step]) >= _BACK_DEG else RIGHT if turn[step] > 0 else LEFT
            found.append(Instruction(action, step, float(along[step])))
    for step in _passed(graph, rows):
        apart = (abs(along[step] - each.at_m) > _TOLD_EACH_M for each in found)
        inside = _BASE_M < along[step] < along[-1] - _BASE_M
        if inside and all(apart):
            found.append(Instruction(STRAIGHT, step, float(along[step])))
    return sorted(found, key=lambda each: each.step)


def _passed(graph: RoadGraph, rows: Indices) -> Sequence[int]:
    """Return the steps from which another drive leads aside, by over 40 and under 140 degrees."""
    on_route = set(rows.tolist())
    passed = []
    for step in range(1, len(rows) - 1):
        row = int(rows[step])
        here, ahead = graph.enu[row, :2], graph.enu[int(rows[step + 1]), :2]
        way = ahead - here
        for other in sorted(graph.network[row]):
            if other in on_route:
                continue
            for beyond in sorted(graph.network[other]):
                aside = graph.enu[beyond, :2] - graph.enu[other, :2]
                size = float(np.linalg.norm(aside) * np.linalg.norm(way))
                if beyond not in on_route and size > 0:
                    angle = np.degrees(np.arccos(np.clip(way @ aside / size, -1, 1)))
                    if _TURN_DEG < angle < 180.0 - _TURN_DEG:
                        passed.append(step)
                        break
            if passed and passed[-1] == step:
                break
    return passed


def farthest_apart(graph: RoadGraph) -> tuple[int, int] | None:
    """Return two rows of the largest component with a long way between them, None without a way.

    From any photograph the farthest, and from that the farthest again.
    """
    members = np.flatnonzero(graph.component == 0)
    if len(members) < 2:
        return None
    row = int(members[0])
    for _ in range(2):
        metres = nx.single_source_dijkstra_path_length(graph.network, row, weight="length")
        previous, row = row, max(sorted(metres), key=lambda each: metres[each])
    return previous, row


def geodetic_line(route: Route) -> Array:
    """Return latitude, longitude and altitude of the photographs of a route, (k, 3)."""
    return enu_to_geodetic(route.graph.enu[route.rows], route.graph.origin)
