"""The empty plot of the map, its tools, and the numbering of its parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import (
    BasicTickFormatter,
    BoxZoomTool,
    ColumnDataSource,
    DataRange1d,
    HoverTool,
    PanTool,
    ResetTool,
    Scatter,
    WheelZoomTool,
    ZoomInTool,
    ZoomOutTool,
)
from bokeh.models.annotations import ScaleBar
from bokeh.models.annotations.dimensional import MetricLength
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure
from numpy.typing import NDArray

from vladmap.reporting.map_layers import Places

_STREET = 30.0  # metres; or the units of models without GPS, which are drawn 100 across

# Bokeh fills the columns in as text, escaped; its own table of labels is too pale on white.
_TOOLTIP = """
<div style="max-width: 22rem; overflow-wrap: anywhere; line-height: 1.45">
<b>@name</b><br>@state, model @model<br>sequence @sequence<br>predicted error @error<br>
GPS residual, horizontal @residual
</div>
"""


def for_bokeh(values: NDArray[Any]) -> Any:
    """Numbers stay an array, which Bokeh packs; words become a list, which it writes as JSON."""
    return values if values.dtype.kind == "f" else values.tolist()


def hover_tool(marks: list[Any]) -> HoverTool:
    return HoverTool(
        renderers=marks,
        visible=False,  # as a button; there is nothing to switch
        point_policy="snap_to_data",
        tooltips=_TOOLTIP,
        limit=4,  # zoomed out, a pointer covers hundreds of images
    )


def street_frame(places: Places) -> GlyphRenderer | None:
    """An invisible frame around the places, some 30 m wide.

    It counts for the ranges of the map, which for a single image would otherwise span the
    centimetres of its GPS residual.
    """
    known = [axis[np.isfinite(axis)] for axis in places.best]
    if any(axis.size == 0 or np.ptp(axis) > _STREET for axis in known):
        return None
    corners = {
        name: axis.mean() + np.array([-0.5, 0.5]) * _STREET
        for name, axis in zip("xy", known, strict=True)
    }
    source = ColumnDataSource(corners)
    return GlyphRenderer(data_source=source, glyph=Scatter(x="x", y="y"), visible=False)


def empty_plot(metric: bool) -> figure:
    wheel = WheelZoomTool()
    plot = figure(
        name="atlas",
        # Hidden layers count, so that hiding one does not move the map.
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


def renumbered(item: dict[str, Any]) -> dict[str, Any]:
    """Count Bokeh's ids from 1 in order of appearance.

    Bokeh numbers models across the whole process, so that a second report in it would differ.
    Only values under Bokeh's own keys of ids are changed: data are in lists without such keys.
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
