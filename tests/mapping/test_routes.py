"""Routes on a road graph made by hand: two streets that cross, and one that nothing joins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.mapping.road_graph import (
    IMAGE_COLUMNS,
    PAIR_COLUMNS,
    POSE_COLUMNS,
    RoadGraph,
    road_graph,
)
from vladmap.mapping.routes import (
    BACK,
    END,
    LEFT,
    QUALITY,
    RIGHT,
    START,
    STRAIGHT,
    Place,
    Route,
    farthest_apart,
    find_route,
    headings_and_turns,
)
from vladmap.schemas import tables
from vladmap.schemas.rejects import UserError

ORIGIN = (48.0, 16.0, 100.0)
MORNING = datetime(2024, 5, 1, 9, 0, tzinfo=UTC)
LEVEL_NORTH = {"qw": np.sqrt(0.5), "qx": np.sqrt(0.5), "qy": 0.0, "qz": 0.0}

Photo = tuple[str, float, float, str | None, int]


def east(y: float = 0.0, name: str = "e", start: float = -50.0) -> list[Photo]:
    """A drive eastwards, a photograph each 5 m."""
    return [(f"{name}{k:02d}", start + 5.0 * k, y, name, k) for k in range(21)]


def north(x: float = 2.0, name: str = "n") -> list[Photo]:
    return [(f"{name}{k:02d}", x, -48.0 + 5.0 * k, name, k) for k in range(21)]


# East and north meet at (0, 2): photographs e10 at (0, 0) and n10 at (2, 2).
CROSS = [*east(), *north()]


def graph_of(
    photos: list[Photo],
    pairs: list[tuple[str, str]],
    given: dict[str, dict[str, Any]] | None = None,
    verdict: str = "kept",
) -> RoadGraph:
    enu = np.array([[x, y, 0.0] for _, x, y, _, _ in photos])
    poses, images = [], []
    for (name, _, _, drive, index), place in zip(
        photos, enu_to_geodetic(enu, ORIGIN).tolist(), strict=True
    ):
        more = (given or {}).get(name, {})
        pose = {
            "image_id": name, "name": f"{name}.jpg", "uri": f"/c/{name}.jpg", "model": 0,
            **dict(zip(("latitude", "longitude", "altitude"), place, strict=True)),
            **LEVEL_NORTH, "predicted_error_m": 0.1, "doubt": None,
        }  # fmt: skip
        poses.append({key: more.get(key, value) for key, value in pose.items()})
        at = more.get("captured_at", MORNING + timedelta(seconds=index))
        images.append(
            {"image_id": name, "sequence_id": drive, "sequence_index": index, "captured_at": at}
        )
    rows = [{"image_id_a": a, "image_id_b": b, "verdict": verdict} for a, b in pairs]

    def table(records: list[dict[str, Any]], schema: pa.Schema, columns: list[str]) -> pa.Table:
        return pa.Table.from_pylist(records, pa.schema([schema.field(name) for name in columns]))

    return road_graph(
        table(poses, tables.POSES, POSE_COLUMNS),
        table(images, tables.IMAGES, IMAGE_COLUMNS),
        table(rows, tables.TWO_VIEWS, PAIR_COLUMNS),
    )


def names(route: Route) -> list[str]:
    return [route.graph.table["image_id"][int(row)].as_py() for row in route.rows]


def told(route: Route) -> list[tuple[str, str]]:
    return [(each.action, names(route)[each.step]) for each in route.instructions]


def test_a_route_turns_left_where_a_trusted_pair_joins_two_streets() -> None:
    route = find_route(graph_of(CROSS, [("e10", "n10")]), Place("e00"), Place("n20"))
    assert names(route) == [f"e{k:02d}" for k in range(11)] + [f"n{k:02d}" for k in range(10, 21)]
    assert route.length_m == pytest.approx(50 + np.hypot(2, 2) + 50, abs=1e-3)
    actions = told(route)
    assert [action for action, _ in actions] == [START, LEFT, END]
    assert actions[1][1] in {"e09", "e10", "n10", "n11"}
    assert route.heading[0] == pytest.approx(90, abs=0.1)
    assert route.heading[-1] == pytest.approx(0, abs=0.1)


def test_the_way_back_turns_right_and_goes_against_the_drives() -> None:
    route = find_route(graph_of(CROSS, [("e10", "n10")]), Place("n20"), Place("e00"))
    assert [action for action, _ in told(route)] == [START, RIGHT, END]
    assert route.heading[0] == pytest.approx(180, abs=0.1)


def test_a_crossing_that_is_passed_is_told() -> None:
    route = find_route(graph_of(CROSS, [("e10", "n10")]), Place("e00"), Place("e20"))
    assert told(route) == [(START, "e00"), (STRAIGHT, "e10"), (END, "e20")]
    assert route.instructions[1].at_m == pytest.approx(50, abs=1e-3)


def test_without_a_trusted_pair_crossing_streets_are_not_joined() -> None:
    for graph in (graph_of(CROSS, []), graph_of(CROSS, [("e10", "n10")], verdict="alike")):
        with pytest.raises(UserError, match=r"part 1 of 2 \(21 photographs.*part 2 of 2"):
            find_route(graph, Place("e00"), Place("n20"))


def test_a_trusted_pair_far_apart_joins_nothing() -> None:
    graph = graph_of(CROSS, [("e00", "n20")])
    assert graph.component.max() == 1


@pytest.mark.parametrize(
    "given",
    [
        {f"e{k:02d}": {"captured_at": MORNING + timedelta(hours=1)} for k in range(10, 21)},
        {f"e{k:02d}": {"model": 1} for k in range(10, 21)},
        {f"e{k:02d}": {"latitude": 48.01} for k in range(10, 21)},
    ],
    ids=["time", "model", "space"],
)
def test_a_drive_is_cut_at_a_jump(given: dict[str, dict[str, Any]]) -> None:
    graph = graph_of(east(), [], given)
    assert graph.component.tolist() == [1] * 10 + [0] * 11
    with pytest.raises(UserError, match="no way leads"):
        find_route(graph, Place("e09"), Place("e10"))


def test_a_camera_that_waited_in_its_place_goes_on() -> None:
    later = {
        f"e{k:02d}": {"captured_at": MORNING + timedelta(hours=1, seconds=k)} for k in range(10, 21)
    }
    waited = [(n, x - 3.0 if n >= "e10" else x, y, d, k) for n, x, y, d, k in east()]
    assert graph_of(waited, [], later).component.max() == 0


def test_doubtful_photographs_and_those_without_a_place_are_left_out_and_counted() -> None:
    given = {"e05": {"doubt": "torn"}, "e20": {"latitude": None}}
    graph = graph_of(east(), [], given)
    assert (graph.doubtful, graph.without_place, len(graph.enu)) == (1, 1, 19)
    route = find_route(graph, Place("e00"), Place("e19"))
    assert "e05" not in names(route)  # its neighbours are 10 m apart, which is no jump


def test_by_quality_the_longer_way_with_smaller_errors_is_taken() -> None:
    """Two ways from e00 to e20: straight on, or 8 m aside on a drive that is held better."""
    photos = [*east(), *east(8.0, "g")]
    pairs = [("e00", "g00"), ("e20", "g20")]
    good = {f"g{k:02d}": {"predicted_error_m": 0.02} for k in range(21)}
    graph = graph_of(photos, pairs, good)
    short = find_route(graph, Place("e00"), Place("e20"))
    best = find_route(graph, Place("e00"), Place("e20"), QUALITY)
    assert names(short) == [f"e{k:02d}" for k in range(21)]
    assert names(best) == ["e00", *(f"g{k:02d}" for k in range(21)), "e20"]
    assert best.length_m == pytest.approx(116, abs=1e-3)
    # 10 m of crossing to and fro (2 m more each) at 0.06 m, 100 m at 0.02 m: 3.2; the other 10.
    assert best.facts()["predicted_error_mean_m"] < short.facts()["predicted_error_mean_m"] == 0.1


def test_by_quality_every_error_must_be_known() -> None:
    graph = graph_of(east(), [], {"e03": {"predicted_error_m": None}})
    with pytest.raises(UserError, match="vladmap merge"):
        find_route(graph, Place("e00"), Place("e20"), QUALITY)


def test_points_on_earth_are_those_of_the_nearest_photographs() -> None:
    graph = graph_of(CROSS, [("e10", "n10")])
    (start, end) = enu_to_geodetic([[-51.0, 3.0, 0.0], [2.0, 60.0, 0.0]], ORIGIN)[:, :2].tolist()
    route = find_route(graph, Place(None, *start), Place(None, *end))
    assert (names(route)[0], names(route)[-1]) == ("e00", "n20")
    assert route.start_off_m == pytest.approx(np.hypot(1, 3), abs=0.01)
    assert route.end_off_m == pytest.approx(8.0, abs=0.01)


def test_of_two_streets_at_a_point_the_one_with_a_way_is_taken() -> None:
    """A point between two drives, of which the nearer leads nowhere."""
    photos = [*east(), *east(6.0, "x", start=20.0)]
    point = enu_to_geodetic([[30.0, 4.0, 0.0]], ORIGIN)[0, :2].tolist()
    route = find_route(graph_of(photos, []), Place("e00"), Place(None, *point))
    assert names(route)[-1] == "e16"
    assert route.end_off_m == pytest.approx(4.0, abs=0.01)


def test_a_point_too_far_away_says_how_far_and_from_what() -> None:
    point = enu_to_geodetic([[50.0, 300.0, 0.0]], ORIGIN)[0, :2].tolist()
    with pytest.raises(UserError, match=r"--to .* is 300 m from .*e20\.jpg.*--reach-m 50"):
        find_route(graph_of(east(), []), Place("e00"), Place(None, *point))


def test_a_route_of_one_photograph_starts_where_it_is() -> None:
    route = find_route(graph_of(east(), []), Place("e03"), Place("e03"))
    assert (route.length_m, told(route)) == (0.0, [(START, "e03")])


def test_an_empty_map_has_no_roads() -> None:
    graph = graph_of(east()[:1], [], {"e00": {"doubt": "loose"}})
    assert farthest_apart(graph) is None
    with pytest.raises(UserError, match="no roads"):
        find_route(graph, Place(None, 48.0, 16.0), Place(None, 48.0, 16.0))


def test_a_change_of_lane_is_no_turn_and_turning_back_is_told() -> None:
    lane = np.array([[4.0 * k, 0.0 if k < 10 else 3.0] for k in range(20)])
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(lane, axis=0), axis=1))])
    assert np.abs(headings_and_turns(lane, along)[1]).max() < 40
    drive = [(f"e{k:02d}", 5.0 * min(k, 20 - k), 0.01 * k, "e", k) for k in range(21)]
    route = find_route(graph_of(drive, []), Place("e00"), Place("e20"))
    assert [action for action, _ in told(route)] == [START, BACK, END]


def test_the_farthest_photographs_are_the_ends_of_the_longest_way() -> None:
    graph = graph_of(CROSS, [("e10", "n10")])
    found = farthest_apart(graph)
    assert found is not None
    ends = {graph.table["image_id"][row].as_py() for row in found}
    assert ends < {"e00", "e20", "n00", "n20"}


def test_facts_say_where_each_camera_looks() -> None:
    facts = find_route(graph_of(east(), []), Place("e00"), Place("e20")).facts()
    assert facts["steps"][4]["camera_heading_deg"] == pytest.approx(0.0, abs=0.1)
    assert facts["steps"][4]["heading_deg"] == pytest.approx(90.0, abs=0.1)
    assert facts["photographs"] == 21
