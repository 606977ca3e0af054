"""The map as a Bokeh document: layers of images, GPS positions, pairs and headings.

Colours are not set here: the page gives each layer its colour from its style sheet, by the layer's
name, so that legend and map agree in a light and in a dark scheme.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from bokeh.core.properties import value
from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.models import (
    BasicTickFormatter,
    BoxZoomTool,
    ColumnDataSource,
    DataRange1d,
    HoverTool,
    PanTool,
    Ray,
    ResetTool,
    Scatter,
    Segment,
    WheelZoomTool,
    ZoomInTool,
    ZoomOutTool,
)
from bokeh.models.annotations import ScaleBar
from bokeh.models.annotations.dimensional import MetricLength
from bokeh.models.glyph import Glyph
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure
from numpy.typing import NDArray

from vladmap.reporting.data import ReportData
from vladmap.reporting.facts import Facts, floats, rows_of, strings
from vladmap.reporting.geometry import Floats, LocalMercator, flatten_models, heading_of_rotation

MAX_MARKS = 100_000
"""Images drawn per layer: a browser still pans a hundred thousand marks, but not a million."""
MAX_LINES = 20_000
"""Lines drawn per layer: more of them hide one another long before they slow a browser down."""

ELEMENT_ID = "map"
_STREET = 30.0  # metres; or the units of models without GPS, which are drawn 100 across

# Bokeh fills the columns in as text, escaped; its own table of labels is too pale on white.
_TOOLTIP = """
<div style="max-width: 22rem; overflow-wrap: anywhere; line-height: 1.45">
<b>@name</b><br>@state, model @model<br>sequence @sequence<br>GPS residual, horizontal @residual
</div>
"""

Columns = dict[str, NDArray[Any]]
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
    """`item` is what BokehJS embeds; `layers` run from the top one down; `notes` say what is left
    out; `caption` says what the axes are. There is no item where no image has a position."""

    item: dict[str, Any] | None
    layers: list[Layer]
    notes: list[str]
    caption: str


@dataclasses.dataclass(frozen=True)
class _Places:
    """Where each image is, x and y; NaN where unknown."""

    gps: tuple[Floats, Floats]
    mapped: tuple[Floats, Floats]
    metric: bool  # metres east and north; else units without a meaning
    caption: str

    @property
    def best(self) -> tuple[Floats, Floats]:
        """Where an image was mapped, else where GPS puts it."""
        mapped = np.isfinite(self.mapped[0])
        x, y = (np.where(mapped, m, g) for m, g in zip(self.mapped, self.gps, strict=True))
        return x, y


@dataclasses.dataclass(frozen=True)
class _Drawing:
    name: str
    label: str
    shape: str
    glyph: Glyph
    columns: Columns
    placeless: int = 0


def atlas_map(data: ReportData, facts: Facts) -> AtlasMap:
    """Draw the atlas. The same data give the same item, ids included."""
    places = _places(data, facts)
    drawings = _lines(facts, places) + _marks(facts, places)
    plot = _empty_plot(places.metric)
    layers, marks = [], []
    for drawing in drawings:
        count = len(drawing.columns["x"])
        rows = thinned(count, MAX_MARKS if isinstance(drawing.glyph, Scatter) else MAX_LINES)
        total = count + drawing.placeless
        layers.append(
            Layer(drawing.name, drawing.label, drawing.shape, total, len(rows), drawing.placeless)
        )
        if count:
            columns = {key: _for_bokeh(values[rows]) for key, values in drawing.columns.items()}
            renderer = GlyphRenderer(
                name=drawing.name, data_source=ColumnDataSource(columns), glyph=drawing.glyph
            )
            plot.renderers.append(renderer)
            if isinstance(drawing.glyph, Scatter):
                marks.append(renderer)
    notes = _notes(facts, places, layers)
    if not marks:
        return AtlasMap(None, layers[::-1], notes, "There is no map: no image has a position.")
    plot.add_tools(_hover(marks))
    if frame := _frame(places):
        plot.renderers.append(frame)
    item = dict(json_item(plot, target=ID(ELEMENT_ID)))
    return AtlasMap(_renumbered(item), layers[::-1], notes, places.caption)


def thinned(count: int, limit: int) -> Rows:
    """Up to `limit` of `count` rows, evenly spread, so that a thinned map keeps its shape."""
    if count <= limit:
        return np.arange(count)
    return np.arange(limit) * count // limit


def _places(data: ReportData, facts: Facts) -> _Places:
    images, pose_row = facts.images, facts.pose_row
    gps = floats(images, "latitude"), floats(images, "longitude")
    mapped = tuple(
        np.append(floats(facts.poses, name), np.nan)[pose_row] for name in ("latitude", "longitude")
    )
    if not (facts.has_gps.any() or np.isfinite(mapped[0]).any()):
        return _model_places(data, facts)
    frame = LocalMercator.about(np.append(gps[0], mapped[0]), np.append(gps[1], mapped[1]))
    return _Places(
        gps=frame.project(*gps),
        mapped=frame.project(mapped[0], mapped[1]),
        metric=True,
        caption=f"Metres east and north of {frame.latitude:.6f}°, {frame.longitude:.6f}° (WGS84).",
    )


def _model_places(data: ReportData, facts: Facts) -> _Places:
    nowhere = np.full(facts.images.num_rows, np.nan)
    mapped = nowhere, nowhere
    if data.model_positions is not None and data.model_positions.num_rows:
        centres = data.model_positions.sort_by("image_id")
        positions = np.stack([floats(centres, axis) for axis in "xyz"], axis=1)
        x, y = flatten_models(positions, floats(centres, "model").astype(np.int64))
        row = rows_of(facts.images["image_id"], centres["image_id"].combine_chunks())
        row[~facts.registered] = -1
        mapped = np.append(x, np.nan)[row], np.append(y, np.nan)[row]
    return _Places(
        gps=(nowhere, nowhere),
        mapped=mapped,
        metric=False,
        caption="No image has a GPS position: each model is drawn in its own coordinates, without "
        "scale, seen along the normal of its best plane and set beside the next.",
    )


def _lines(facts: Facts, places: _Places) -> list[_Drawing]:
    x, y = places.best
    on_map = np.isfinite(x)
    ids = facts.images["image_id"].combine_chunks()
    ends = np.stack([rows_of(facts.verified_pairs[f"image_id_{end}"], ids) for end in "ab"])
    ends = ends[:, (ends >= 0).all(axis=0)]
    a, b = ends[:, on_map[ends].all(axis=0)]
    moved = np.flatnonzero(np.isfinite(places.gps[0]) & np.isfinite(places.mapped[0]))
    (gps_x, gps_y), (mapped_x, mapped_y) = places.gps, places.mapped
    heading = _headings(facts, places.metric)
    headed = np.flatnonzero(on_map & np.isfinite(heading))
    return [
        _Drawing(
            "pairs",
            "Verified pairs",
            "line",
            Segment(x0="x", y0="y", x1="x1", y1="y1", line_alpha=0.35),
            {"x": x[a], "y": y[a], "x1": x[b], "y1": y[b]},
        ),
        _Drawing(
            "headings",
            "Headings",
            "line",
            Ray(x="x", y="y", angle="angle", length=value(14, units="screen"), line_width=1.5),
            # Bokeh turns counter-clockwise from the x axis, a compass clockwise from north.
            {"x": x[headed], "y": y[headed], "angle": np.radians(90.0 - heading[headed])},
        ),
        _Drawing(
            "offsets",
            "GPS to mapped",
            "line",
            Segment(x0="x", y0="y", x1="x1", y1="y1", line_width=1.2),
            {"x": gps_x[moved], "y": gps_y[moved], "x1": mapped_x[moved], "y1": mapped_y[moved]},
        ),
    ]


def _marks(facts: Facts, places: _Places) -> list[_Drawing]:
    with_gps, mapped = (np.isfinite(at[0]) for at in (places.gps, places.mapped))
    missing = ~facts.registered & ~facts.duplicate
    labels = _hover_columns(facts)

    def images_at(chosen: NDArray[np.bool_], at: tuple[Floats, Floats]) -> Columns:
        rows = np.flatnonzero(chosen)
        columns = {key: values[rows] for key, values in labels.items()}
        return {"x": at[0][rows], "y": at[1][rows], **columns}

    return [
        _Drawing(
            "gps",
            "GPS of registered",
            "ring",
            Scatter(
                marker="circle", size=5 if mapped.sum() < 5_000 else 3, fill_alpha=0, line_width=1.2
            ),
            # Also of models that GPS could not place: they are in the map, if not on this one.
            images_at(with_gps & facts.registered, places.gps),
        ),
        _Drawing(
            "rejected",
            "Rejected",
            "cross",
            Scatter(marker="x", size=9, line_width=2.2),
            images_at(missing & facts.rejected & with_gps, places.gps),
            int((missing & facts.rejected & ~with_gps).sum()),
        ),
        _Drawing(
            "unregistered",
            "Not registered",
            "diamond",
            Scatter(marker="diamond", size=11),
            images_at(missing & ~facts.rejected & with_gps, places.gps),
            int((missing & ~facts.rejected & ~with_gps).sum()),
        ),
        _Drawing(
            "registered",
            "Registered",
            "dot",
            Scatter(marker="circle", size=7 if mapped.sum() < 5_000 else 4),
            images_at(mapped, places.mapped),
        ),
    ]


def _headings(facts: Facts, geographic: bool) -> Floats:
    """Degrees from north: as mapped, else as the photograph's tag says."""
    if not geographic:
        return np.full(facts.images.num_rows, np.nan)
    quaternion = np.stack([floats(facts.poses, name) for name in ("qw", "qx", "qy", "qz")], axis=1)
    of_pose = np.append(heading_of_rotation(quaternion), np.nan)
    of_image = floats(facts.images, "heading_deg")
    return np.where(facts.registered, of_pose[facts.pose_row], of_image)


def _hover_columns(facts: Facts) -> Columns:
    model = np.append(floats(facts.poses, "model"), np.nan)[facts.pose_row]
    residual = facts.gps_residual_horizontal_m
    state = np.select(
        [facts.registered, facts.rejected], ["registered", "rejected"], "not registered"
    ).astype(object)
    why = ~facts.registered & (facts.reason != None)  # noqa: E711 - elementwise
    state[why] = state[why] + ": " + facts.reason[why]
    sequence = strings(facts.images, "sequence_id")
    return {
        "name": strings(facts.images, "name"),
        "state": state,
        "sequence": np.where(sequence == None, "—", sequence),  # noqa: E711 - elementwise
        "model": np.where(np.isfinite(model), np.char.mod("%.0f", model), "—"),
        "residual": np.where(np.isfinite(residual), np.char.mod("%.2f m", residual), "—"),
    }


def _for_bokeh(values: NDArray[Any]) -> Any:
    """Numbers stay an array, which Bokeh packs; words become a list, which it writes as JSON."""
    return values if values.dtype.kind == "f" else values.tolist()


def _hover(marks: list[Any]) -> HoverTool:
    return HoverTool(
        renderers=marks,
        visible=False,  # as a button; there is nothing to switch
        point_policy="snap_to_data",
        tooltips=_TOOLTIP,
        limit=4,  # zoomed out, a pointer covers hundreds of images
    )


def _frame(places: _Places) -> GlyphRenderer | None:
    """What widens the view to a street about a single image: else it would show the centimetres of
    its GPS residual. It is not drawn, but the ranges count it."""
    known = [axis[np.isfinite(axis)] for axis in places.best]
    if any(axis.size == 0 or np.ptp(axis) > _STREET for axis in known):
        return None
    corners = {
        name: axis.mean() + np.array([-0.5, 0.5]) * _STREET
        for name, axis in zip("xy", known, strict=True)
    }
    source = ColumnDataSource(corners)
    return GlyphRenderer(data_source=source, glyph=Scatter(x="x", y="y"), visible=False)


def _empty_plot(metric: bool) -> figure:
    wheel = WheelZoomTool()
    plot = figure(
        name="atlas",
        # Hidden layers still count, so that the legend does not move the map.
        x_range=DataRange1d(range_padding=0.08, only_visible=False),
        y_range=DataRange1d(range_padding=0.08, only_visible=False),
        match_aspect=True,
        sizing_mode="stretch_both",
        tools=[PanTool(), wheel, BoxZoomTool(), ZoomInTool(), ZoomOutTool(), ResetTool()],
        active_scroll=wheel,
        toolbar_location="above",
        x_axis_label="east (m)" if metric else None,
        y_axis_label="north (m)" if metric else None,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
    )
    plot.toolbar.logo = None
    plot.axis.formatter = BasicTickFormatter(use_scientific=False)
    plot.axis.visible = metric
    if metric:
        bar = ScaleBar(
            range=plot.x_range,
            unit="m",
            dimensional=MetricLength(),
            bar_length=0.12,
            bar_line_color="#7f8a98",  # read once, when the map is built: seen on light and dark
            location="bottom_right",
            background_fill_alpha=0.0,
            border_line_color=None,
        )
        plot.add_layout(bar)
    return plot


def _renumbered(item: dict[str, Any]) -> dict[str, Any]:
    """Count Bokeh's ids from 1 in order of appearance.

    Bokeh numbers models across the whole process, so that a second report in it would differ.
    Only what Bokeh wrote as an id is touched: data stand in lists, never under a key of their own.
    """
    known: dict[str, str] = {}

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: known.setdefault(value, f"v{len(known) + 1}")
                if key in ("id", "root_id") and isinstance(value, str)
                else walk(value)
                for key, value in node.items()
            }
        return [walk(element) for element in node] if isinstance(node, list) else node

    return dict(walk(item))


def _notes(facts: Facts, places: _Places, layers: list[Layer]) -> list[str]:
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
