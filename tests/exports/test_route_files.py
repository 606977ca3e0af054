"""A route's GeoJSON and GPX, read back by GDAL's readers and by gpxpy."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import gpxpy
import numpy as np
import pyogrio
import pytest

from tests.mapping.test_routes import CROSS, graph_of
from vladmap.exports.route_files import geojson, gpx, write_route
from vladmap.geodesy.wgs84 import great_circle_m
from vladmap.mapping.routes import Place, Route, find_route
from vladmap.schemas.rejects import UserError


def way() -> Route:
    return find_route(graph_of(CROSS, [("e10", "n10")]), Place("e00"), Place("n20"))


def test_geopandas_reads_the_line_and_a_point_for_each_instruction(tmp_path: Path) -> None:
    write_route(way(), tmp_path / "out")
    frame = geopandas.read_file(tmp_path / "out" / "route.geojson")
    assert frame.geom_type.tolist() == ["LineString", "Point", "Point", "Point"]
    assert frame["text"].tolist()[1:] == ["start", "turn left", "arrive"]
    assert frame["name"].tolist()[1] == "e00.jpg"
    assert frame.crs is not None
    assert frame.crs.to_epsg() == 4326
    line = frame.geometry[0]
    assert len(line.coords) == 22
    metres = frame.geometry.set_crs(4326, allow_override=True).to_crs(32633).length[0]
    assert metres == pytest.approx(way().length_m, rel=1e-3)
    assert frame["length_m"][0] == pytest.approx(way().length_m, abs=0.01)


def test_gdal_and_gpxpy_read_the_same_track_and_route(tmp_path: Path) -> None:
    _, path = write_route(way(), tmp_path / "out")
    read = gpxpy.parse(path.read_text())
    [segment] = read.tracks[0].segments
    assert len(segment.points) == 22
    assert segment.length_2d() == pytest.approx(way().length_m, rel=0.01)
    told = read.routes[0].points
    assert [point.name for point in told] == ["start", "turn left", "arrive"]
    assert told[0].description == "after 0 m: e00.jpg"
    assert told[-1].comment == "n20"
    layers = {name for name, _ in pyogrio.list_layers(path)}
    assert {"tracks", "routes", "track_points", "route_points"} <= layers
    points = geopandas.read_file(path, layer="track_points")
    off = great_circle_m(
        points.geometry.y.to_numpy(), points.geometry.x.to_numpy(),
        np.array([each.latitude for each in segment.points]),
        np.array([each.longitude for each in segment.points]),
    )  # fmt: skip
    assert off.max() < 0.01


def test_the_track_lies_where_the_photographs_do() -> None:
    route = way()
    coordinates = json.loads(geojson(route))["features"][0]["geometry"]["coordinates"]
    for step, (longitude, latitude, altitude) in enumerate(coordinates):
        photograph = route.photograph(step)
        assert longitude == pytest.approx(photograph["longitude"], abs=1e-7)
        assert latitude == pytest.approx(photograph["latitude"], abs=1e-7)
        assert altitude == pytest.approx(photograph["altitude"], abs=2e-3)


def test_names_that_xml_cannot_hold_are_written_all_the_same() -> None:
    graph = graph_of(CROSS, [("e10", "n10")], {"e00": {"name": "<a> & \x07 \N{SNOWMAN}.jpg"}})
    route = find_route(graph, Place("e00"), Place("e05"))
    told = gpxpy.parse(gpx(route)).routes[0].points
    assert told[0].description == "after 0 m: <a> & \ufffd \N{SNOWMAN}.jpg"
    assert json.loads(geojson(route))["features"][1]["properties"]["name"].startswith("<a> & \x07")


def test_a_route_of_one_photograph_is_a_point(tmp_path: Path) -> None:
    route = find_route(graph_of(CROSS, []), Place("e03"), Place("e03"))
    geojson_path, gpx_path = write_route(route, tmp_path / "out")
    assert geopandas.read_file(geojson_path).geom_type.tolist() == ["Point", "Point"]
    assert len(gpxpy.parse(gpx_path.read_text()).tracks[0].segments[0].points) == 1


def test_a_folder_that_holds_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="holds files"):
        write_route(way(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
