"""A route as GeoJSON (RFC 7946) and as GPX 1.1."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from vladmap.exports.base import new_folder
from vladmap.mapping.routes import WORDS, Route, geodetic_line

GEOJSON, GPX = "route.geojson", "route.gpx"

_GPX = "http://www.topografix.com/GPX/1/1"
_DIGITS = 8
# XML has no way to write these.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_route(route: Route, output: Path) -> list[Path]:
    """Write a route into a new folder and return the files.

    Raises UserError where the folder holds files or cannot be written.
    """
    with new_folder(output) as folder:
        files = {GEOJSON: geojson(route), GPX: gpx(route)}
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    return [output / name for name in files]


def geojson(route: Route) -> str:
    """The route as a collection: its line, and a point for each instruction with its photograph."""
    facts = route.facts()
    line = [_position(*place) for place in geodetic_line(route).tolist()]
    whole = {key: value for key, value in facts.items() if key not in ("instructions", "steps")}
    features = [_feature({"type": "LineString", "coordinates": line}, {"kind": "route", **whole})]
    if len(line) == 1:  # A line has two ends.
        features = [_feature({"type": "Point", "coordinates": line[0]}, {"kind": "route", **whole})]
    for each, told in zip(route.instructions, facts["instructions"], strict=True):
        point = {"type": "Point", "coordinates": line[each.step]}
        features.append(
            _feature(point, {"kind": "instruction", "text": WORDS[each.action], **told})
        )
    collection = {"type": "FeatureCollection", "features": features}
    return json.dumps(collection, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def gpx(route: Route) -> str:
    """The route as GPX: a track through all photographs, a route point for each instruction."""
    places = geodetic_line(route).tolist()
    ET.register_namespace("", _GPX)
    root = ET.Element(f"{{{_GPX}}}gpx", version="1.1", creator="vladmap")
    steps = ET.SubElement(root, f"{{{_GPX}}}rte")
    _text(steps, "name", f"{route.length_m:.0f} m by {route.by}")
    for each in route.instructions:
        photograph = route.photograph(each.step)
        point = _point(steps, "rtept", places[each.step])
        _text(point, "name", WORDS[each.action])
        _text(point, "cmt", photograph["image_id"])
        _text(point, "desc", f"after {each.at_m:.0f} m: {photograph['name']}")
    track = ET.SubElement(root, f"{{{_GPX}}}trk")
    _text(track, "name", f"{len(places)} photographs")
    segment = ET.SubElement(track, f"{{{_GPX}}}trkseg")
    for place in places:
        _point(segment, "trkpt", place)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _feature(geometry: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _position(latitude: float, longitude: float, altitude: float) -> list[float]:
    return [round(longitude, _DIGITS), round(latitude, _DIGITS), round(altitude, 3)]


def _point(parent: ET.Element, kind: str, place: list[float]) -> ET.Element:
    longitude, latitude, altitude = (repr(value) for value in _position(*place))
    point = ET.SubElement(parent, f"{{{_GPX}}}{kind}", lat=latitude, lon=longitude)
    _text(point, "ele", altitude)
    return point


def _text(parent: ET.Element, kind: str, words: str) -> None:
    ET.SubElement(parent, f"{{{_GPX}}}{kind}").text = _NOT_XML.sub("\ufffd", words)
