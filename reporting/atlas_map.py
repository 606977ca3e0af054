"""The map as a Bokeh document: layers of images, GPS positions, pairs and headings.

Colours are not set here: the page gives each layer its colour from its style sheet, by the layer's
name, so that legend and map agree in a light and in a dark scheme.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.models import (
    ColumnDataSource,
    Scatter,
)
from bokeh.models.renderers import GlyphRenderer
from numpy.typing import NDArray

from vladmap.reporting.data import ReportData
from vladmap.reporting.facts import Facts
from vladmap.reporting.map_layers import (
    Places,
    line_drawings,
    loop_drawings,
    mark_drawings,
    places_of,
    seam_drawings,
)
from vladmap.reporting.map_plot import empty_plot, for_bokeh, hover_tool, renumbered, street_frame

MAX_MARKS = 100_000
"""Images drawn per layer: a browser still pans a hundred thousand marks, but not a million."""

MAX_LINES = 20_000
"""Lines drawn per layer: more of them hide one another long before they slow a browser down."""

ELEMENT_ID = "map"

Rows = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A row of the legend; `drawn` of `count` are on the map, `placeless` have no position.

    `shape` is its swatch's.
    """

    name: str
    label: str
    shape: str
    count: int
    drawn: int
    placeless: int = 0


@dataclasses.dataclass(frozen=True)
class AtlasMap:
    """The map for the page: `item` is what BokehJS embeds, None if no image has a position.

    `layers` are from the top one down, `notes` say what is left out, `caption` what the axes are.
    """

    item: dict[str, Any] | None
    layers: list[Layer]
    notes: list[str]
    caption: str


def atlas_map(data: ReportData, facts: Facts) -> AtlasMap:
    """Draw the atlas. The same data give the same item, ids included."""
    places = places_of(data, facts)
    route = () if data.route is None else data.route.image_ids
    drawings = line_drawings(facts, places, route) + loop_drawings(data, facts, places)
    drawings += seam_drawings(data, facts, places) + mark_drawings(facts, places)
    plot = empty_plot(places.metric)
    layers, marks = [], []
    for drawing in drawings:
        count = len(drawing.columns["x"])
        rows = thinned(count, MAX_MARKS if isinstance(drawing.glyph, Scatter) else MAX_LINES)
        total = count + drawing.placeless
        layers.append(
            Layer(drawing.name, drawing.label, drawing.shape, total, len(rows), drawing.placeless)
        )
        if count:
            columns = {key: for_bokeh(values[rows]) for key, values in drawing.columns.items()}
            renderer = GlyphRenderer(
                name=drawing.name, data_source=ColumnDataSource(columns), glyph=drawing.glyph
            )
            plot.renderers.append(renderer)
            if isinstance(drawing.glyph, Scatter):
                marks.append(renderer)
    notes = _notes(facts, places, layers)
    if not marks:
        return AtlasMap(None, layers[::-1], notes, "There is no map: no image has a position.")
    plot.add_tools(hover_tool(marks))
    if frame := street_frame(places):
        plot.renderers.append(frame)
    item = dict(json_item(plot, target=ID(ELEMENT_ID)))
    return AtlasMap(renumbered(item), layers[::-1], notes, places.caption)


def thinned(count: int, limit: int) -> Rows:
    """Up to `limit` of `count` rows, evenly spread, so that a thinned map keeps its shape."""
    if count <= limit:
        return np.arange(count)
    return np.arange(limit) * count // limit


def _notes(facts: Facts, places: Places, layers: list[Layer]) -> list[str]:
    notes = [
        f"{layer.label}: {layer.drawn:,} of {layer.count - layer.placeless:,} are drawn, evenly "
        "chosen."
        for layer in layers
        if layer.drawn < layer.count - layer.placeless
    ]
    notes += [
        f"{layer.label}: {layer.placeless:,} of {layer.count:,} have no GPS position."
        for layer in layers
        if layer.placeless
    ]
    on_map = np.isfinite(places.best[0])
    placeless = int((~on_map & ~facts.duplicate).sum())
    duplicates = int((facts.duplicate & ~facts.registered).sum())
    if placeless:
        notes.append(f"{placeless:,} images have no position and are not on the map.")
    if duplicates:
        notes.append(f"{duplicates:,} exact duplicates are not drawn.")
    if facts.rejects_unread:
        notes.append(f"{facts.rejects_unread:,} rejects were never read: they have no position.")
    return notes
