"""The layers of the map: what is drawn where, and what a pointer over it shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from bokeh.core.properties import value
from bokeh.models import (
    Ray,
    Scatter,
    Segment,
)
from bokeh.models.glyph import Glyph
from numpy.typing import NDArray

from vladmap.geodesy.headings import headings_deg
from vladmap.reporting.data import ReportData
from vladmap.reporting.facts import Facts, floats, rows_of, strings
from vladmap.reporting.map_geometry import (
    Floats,
    LocalMercator,
    flatten_models,
)

Columns = dict[str, NDArray[Any]]

FAIR_M = 0.2
"""Photographs with a larger predicted error have a colour of their own."""


@dataclasses.dataclass(frozen=True)
class Places:
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
class Drawing:
    name: str
    label: str
    shape: str
    glyph: Glyph
    columns: Columns
    placeless: int = 0


def places_of(data: ReportData, facts: Facts) -> Places:
    images, pose_row = facts.images, facts.pose_row
    gps = floats(images, "latitude"), floats(images, "longitude")
    mapped = tuple(
        np.append(floats(facts.poses, name), np.nan)[pose_row] for name in ("latitude", "longitude")
    )
    if not (facts.has_gps.any() or np.isfinite(mapped[0]).any()):
        return _model_places(data, facts)
    frame = LocalMercator.about(np.append(gps[0], mapped[0]), np.append(gps[1], mapped[1]))
    return Places(
        gps=frame.project(*gps),
        mapped=frame.project(mapped[0], mapped[1]),
        metric=True,
        caption=f"Metres east and north of {frame.latitude:.6f}°, {frame.longitude:.6f}° (WGS84).",
    )


def _model_places(data: ReportData, facts: Facts) -> Places:
    nowhere = np.full(facts.images.num_rows, np.nan)
    mapped = nowhere, nowhere
    if data.model_positions is not None and data.model_positions.num_rows:
        centres = data.model_positions.sort_by("image_id")
        positions = np.stack([floats(centres, axis) for axis in "xyz"], axis=1)
        x, y = flatten_models(positions, floats(centres, "model").astype(np.int64))
        row = rows_of(facts.images["image_id"], centres["image_id"].combine_chunks())
        row[~facts.registered] = -1
        mapped = np.append(x, np.nan)[row], np.append(y, np.nan)[row]
    return Places(
        gps=(nowhere, nowhere),
        mapped=mapped,
        metric=False,
        caption="No image has a GPS position: each model is drawn in its own coordinates, without "
        "scale, seen along the normal of its best plane and set beside the next.",
    )


def line_drawings(facts: Facts, places: Places, route: Sequence[str] = ()) -> list[Drawing]:
    """The layers of lines; `route` are the ids of the photographs along the example of a route."""
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
        Drawing(
            "pairs",
            "Verified pairs",
            "line",
            Segment(x0="x", y0="y", x1="x1", y1="y1", line_alpha=0.35),
            {"x": x[a], "y": y[a], "x1": x[b], "y1": y[b]},
        ),
        Drawing(
            "headings",
            "Headings",
            "line",
            Ray(x="x", y="y", angle="angle", length=value(14, units="screen"), line_width=1.5),
            # Bokeh turns counter-clockwise from the x axis, a compass clockwise from north.
            {"x": x[headed], "y": y[headed], "angle": np.radians(90.0 - heading[headed])},
        ),
        Drawing(
            "offsets",
            "GPS to mapped",
            "line",
            Segment(x0="x", y0="y", x1="x1", y1="y1", line_width=1.2),
            {"x": gps_x[moved], "y": gps_y[moved], "x1": mapped_x[moved], "y1": mapped_y[moved]},
        ),
        *([_route(places, rows_of(pa.array(route, pa.string()), ids))] if route else []),
    ]


def loop_drawings(data: ReportData, facts: Facts, places: Places) -> list[Drawing]:
    """Loops, kept and rejected; none where there are none."""
    x, y = places.best
    ids = facts.images["image_id"].combine_chunks()
    kept = np.asarray(data.loops["kept"].to_numpy(), bool)
    drawings = []
    for name, label, mine in (
        ("loops", "Loops kept", kept),
        ("loops-rejected", "Loops rejected", ~kept),
    ):
        ends = [rows_of(data.loops[f"image_id_{end}"].filter(pa.array(mine)), ids) for end in "ab"]
        a, b = np.stack(ends)[:, (np.stack(ends) >= 0).all(axis=0)]
        drawn = np.isfinite(x[a]) & np.isfinite(x[b])
        a, b = a[drawn], b[drawn]
        if mine.any():
            columns = {"x": x[a], "y": y[a], "x1": x[b], "y1": y[b]}
            glyph = Segment(x0="x", y0="y", x1="x1", y1="y1", line_alpha=0.5)
            drawings.append(Drawing(name, label, "line", glyph, columns))
    return drawings


def seam_drawings(data: ReportData, facts: Facts, places: Places) -> list[Drawing]:
    """Photographs in several tiles, where these are joined; none where there are none."""
    if not data.in_several_tiles:
        return []
    ids = facts.images["image_id"].combine_chunks()
    rows = rows_of(pa.array(list(data.in_several_tiles), pa.string()), ids)
    x, y = (axis[rows[rows >= 0]] for axis in places.best)
    known = np.isfinite(x)
    glyph = Scatter(marker="circle", size=11, fill_alpha=0, line_width=1.4)
    labels = {key: values[rows[rows >= 0]][known] for key, values in _hover_columns(facts).items()}
    columns = {"x": x[known], "y": y[known], **labels}
    return [Drawing("seams", "In several tiles", "ring", glyph, columns)]


def _route(places: Places, rows: NDArray[np.int64]) -> Drawing:
    x, y = (axis[rows[rows >= 0]] for axis in places.best)
    return Drawing(
        "route",
        "A route",
        "line",
        Segment(x0="x", y0="y", x1="x1", y1="y1", line_width=5, line_alpha=0.6),
        {"x": x[:-1], "y": y[:-1], "x1": x[1:], "y1": y[1:]},
    )


def mark_drawings(facts: Facts, places: Places) -> list[Drawing]:
    with_gps, mapped = (np.isfinite(at[0]) for at in (places.gps, places.mapped))
    missing = ~facts.registered & ~facts.duplicate
    labels = _hover_columns(facts)

    def images_at(chosen: NDArray[np.bool_], at: tuple[Floats, Floats]) -> Columns:
        rows = np.flatnonzero(chosen)
        columns = {key: values[rows] for key, values in labels.items()}
        return {"x": at[0][rows], "y": at[1][rows], **columns}

    return [
        Drawing(
            "gps",
            "GPS of registered",
            "ring",
            Scatter(
                marker="circle", size=5 if mapped.sum() < 5_000 else 3, fill_alpha=0, line_width=1.2
            ),
            # Also of models that GPS could not place: they are in the map, if not on this one.
            images_at(with_gps & facts.registered, places.gps),
        ),
        Drawing(
            "rejected",
            "Rejected",
            "cross",
            Scatter(marker="x", size=9, line_width=2.2),
            images_at(missing & facts.rejected & with_gps, places.gps),
            int((missing & facts.rejected & ~with_gps).sum()),
        ),
        Drawing(
            "unregistered",
            "Not registered",
            "diamond",
            Scatter(marker="diamond", size=11),
            images_at(missing & ~facts.rejected & with_gps, places.gps),
            int((missing & ~facts.rejected & ~with_gps).sum()),
        ),
        Drawing(
            "registered",
            "Registered",
            "dot",
            Scatter(marker="circle", size=7 if mapped.sum() < 5_000 else 4),
            images_at(mapped, places.mapped),
        ),
        # On top of those that are registered: how well, by colour.
        Drawing(
            "fair",
            f"Predicted error over {FAIR_M:g} m",
            "dot",
            Scatter(marker="circle", size=8 if mapped.sum() < 5_000 else 5),
            images_at(mapped & (facts.predicted_error_m > FAIR_M), places.mapped),
        ),
        Drawing(
            "doubtful",
            "Must not be used",
            "dot",
            Scatter(marker="circle", size=10 if mapped.sum() < 5_000 else 6),
            images_at(mapped & (facts.doubt != None), places.mapped),  # noqa: E711 - elementwise
        ),
    ]


def _headings(facts: Facts, geographic: bool) -> Floats:
    """Degrees from north: as mapped, else as the photograph's tag says."""
    if not geographic:
        return np.full(facts.images.num_rows, np.nan)
    quaternion = np.stack([floats(facts.poses, name) for name in ("qw", "qx", "qy", "qz")], axis=1)
    of_pose = np.append(headings_deg(quaternion), np.nan)
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
    doubtful = facts.doubt != None  # noqa: E711 - elementwise
    state[doubtful] = state[doubtful] + ", must not be used: " + facts.doubt[doubtful]
    sequence = strings(facts.images, "sequence_id")
    predicted = facts.predicted_error_m
    return {
        "name": strings(facts.images, "name"),
        "state": state,
        "sequence": np.where(sequence == None, "—", sequence),  # noqa: E711 - elementwise
        "model": np.where(np.isfinite(model), np.char.mod("%.0f", model), "—"),
        "error": np.where(np.isfinite(predicted), np.char.mod("%.2f m", predicted), "—"),
        "residual": np.where(np.isfinite(residual), np.char.mod("%.2f m", residual), "—"),
    }
