"""The figures that the page and the terminal both state, worked out once from the tables."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vladmap.geodesy.wgs84 import great_circle_m
from vladmap.reporting.data import ReportData
from vladmap.reporting.map_geometry import Floats
from vladmap.reporting.missing import MissingFigures, missing_figures

Strings = NDArray[Any]  # arrays of Python str, or None

NOT_VERIFIED = ("UNDEFINED", "DEGENERATE", "WATERMARK")
"""COLMAP's two-view configurations that say two images do not show the same scene."""


def floats(table: pa.Table, name: str) -> Floats:
    """A numeric column as float64 with NaN for null; a missing column is all NaN."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    column = table[name].combine_chunks().cast(pa.float64())
    return np.asarray(column.fill_null(np.nan).to_numpy(zero_copy_only=False))


def strings(table: pa.Table, name: str) -> Strings:
    """A string column as an object array with None for null; a missing column is all None."""
    if name not in table.column_names:
        return np.full(table.num_rows, None, dtype=object)
    column = table[name].combine_chunks().cast(pa.string())
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)


def rows_of(ids: pa.Array | pa.ChunkedArray, among: pa.Array) -> NDArray[np.int64]:
    """The row of each id in `among`, -1 if it is not there."""
    indices = pc.index_in(ids, value_set=among)
    if isinstance(indices, pa.ChunkedArray):
        indices = indices.combine_chunks()
    return np.asarray(indices.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)


@dataclasses.dataclass(frozen=True)
class ModelFigures:
    """One reconstructed model, from its poses."""

    model: int
    images: int
    points_median: float
    reprojection_error_px: float
    gps_residual_horizontal_median_m: float
    gps_residual_horizontal_max_m: float
    gps_residual_3d_median_m: float
    gps_residual_3d_max_m: float
    predicted_error_median_m: float
    doubtful: int


@dataclasses.dataclass(frozen=True)
class RejectFigures:
    """Rejects of one reason; `examples` are (uri, stage, detail), the first three by name."""

    reason: str
    count: int
    stages: tuple[str, ...]
    examples: tuple[tuple[str, str, str], ...]


@dataclasses.dataclass(frozen=True)
class Facts:
    """Arrays per image, in the order of `images` (sorted by id), and totals."""

    images: pa.Table
    poses: pa.Table
    pose_row: NDArray[np.int64]  # row of the image's pose, -1 without one
    registered: NDArray[np.bool_]
    rejected: NDArray[np.bool_]
    duplicate: NDArray[np.bool_]
    has_gps: NDArray[np.bool_]
    gps_residual_horizontal_m: Floats  # NaN without GPS or without a pose on Earth
    gps_residual_3d_m: Floats  # NaN without an altitude, too
    predicted_error_m: Floats  # NaN without a pose, or where it is not known
    doubt: Strings  # why its pose must not be used, or None
    verified_pairs: pa.Table  # the verified rows of two_views, sorted by ids
    rejects: Sequence[RejectFigures]
    rejects_unread: int  # rejects that are not in `images`: nothing else is known of them
    models: Sequence[ModelFigures]
    reason: Strings  # why the image is not in the map; None if it is, or if there is no reason
    unregistered: pa.Table  # everything that is not in the map; some of it is not in `images`
    missing: Sequence[MissingFigures]

    @functools.cached_property
    def photographs(self) -> int:
        """The number of files that were listed as photographs, in the map or not."""
        return self.registered_total + self.unregistered.num_rows

    @functools.cached_property
    def rejects_total(self) -> int:
        return sum(group.count for group in self.rejects)

    @functools.cached_property
    def distinct(self) -> int:
        """The number of images without exact duplicates: those that can be registered."""
        return int((~self.duplicate | self.registered).sum())

    @functools.cached_property
    def registered_total(self) -> int:
        return int(self.registered.sum())

    @functools.cached_property
    def registered_share(self) -> float:
        """0 to 1; NaN of nothing."""
        return self.registered_total / self.distinct if self.distinct else float("nan")

    @functools.cached_property
    def gps_residual_horizontal_median_m(self) -> float:
        return _median(self.gps_residual_horizontal_m)

    @functools.cached_property
    def gps_residual_3d_median_m(self) -> float:
        return _median(self.gps_residual_3d_m)


def facts_of(data: ReportData) -> Facts:
    """Work out `Facts`; time and memory grow with the number of rows, in array operations."""
    images = data.images.sort_by("image_id").combine_chunks()
    poses = data.poses.sort_by("image_id").combine_chunks()
    ids = images["image_id"].combine_chunks()
    pose_row = rows_of(ids, poses["image_id"].combine_chunks())
    registered = pose_row >= 0
    gps = floats(images, "latitude"), floats(images, "longitude")
    latitude, longitude, altitude = (
        np.append(floats(poses, name), np.nan)[pose_row]
        for name in ("latitude", "longitude", "altitude")
    )
    horizontal = great_circle_m(*gps, latitude, longitude)
    spatial = np.hypot(horizontal, altitude - floats(images, "altitude"))
    rejected_ids = data.rejects["image_id"].combine_chunks()
    return Facts(
        images=images,
        poses=poses,
        pose_row=pose_row,
        registered=registered,
        rejected=(rows_of(ids, rejected_ids) >= 0) & ~registered,
        duplicate=strings(images, "duplicate_of") != None,  # noqa: E711 - elementwise
        has_gps=np.isfinite(gps[0]) & np.isfinite(gps[1]),
        gps_residual_horizontal_m=horizontal,
        predicted_error_m=np.append(floats(poses, "predicted_error_m"), np.nan)[pose_row],
        doubt=np.append(strings(poses, "doubt"), np.array([None], object))[pose_row],
        gps_residual_3d_m=spatial,
        verified_pairs=_verified(data.two_views),
        rejects=_reject_figures(data.rejects),
        rejects_unread=int((rows_of(data.rejects["image_id"], ids) < 0).sum()),
        models=_model_figures(poses, images, horizontal, spatial),
        reason=_reasons(ids, data.unregistered),
        unregistered=data.unregistered,
        missing=missing_figures(data.unregistered),
    )


def _reasons(ids: pa.Array, unregistered: pa.Table) -> Strings:
    row = rows_of(ids, unregistered["image_id"].combine_chunks())
    return np.append(strings(unregistered, "reason"), np.array([None], object))[row]


def _verified(two_views: pa.Table) -> pa.Table:
    configuration = pc.utf8_upper(two_views["configuration"])
    scene = pc.invert(pc.is_in(configuration, value_set=pa.array(NOT_VERIFIED)))
    verified = two_views.filter(pc.and_(scene, pc.greater(two_views["inliers"], 0)))
    return verified.sort_by([("image_id_a", "ascending"), ("image_id_b", "ascending")])


def _reject_figures(rejects: pa.Table) -> list[RejectFigures]:
    figures = []
    for reason in pc.unique(rejects["reason"]).to_pylist():
        group = rejects.filter(pc.equal(rejects["reason"], reason))
        first = group.take(pc.sort_indices(group["uri"])[:3])
        examples = zip(*(first[name].to_pylist() for name in ("uri", "stage", "detail")))  # noqa: B905
        stages = tuple(sorted(pc.unique(group["stage"]).to_pylist()))
        figures.append(RejectFigures(reason, group.num_rows, stages, tuple(examples)))
    return sorted(figures, key=lambda group: (-group.count, group.reason))


def _model_figures(
    poses: pa.Table, images: pa.Table, horizontal: Floats, spatial: Floats
) -> list[ModelFigures]:
    image_row = rows_of(poses["image_id"], images["image_id"].combine_chunks())
    # A pose without an image has row -1, which selects the NaN that is appended.
    of_pose = [np.append(residual, np.nan)[image_row] for residual in (horizontal, spatial)]
    model_of_pose = floats(poses, "model")
    points = floats(poses, "points")
    error = floats(poses, "reprojection_error_px")
    predicted, doubt = floats(poses, "predicted_error_m"), strings(poses, "doubt")
    figures = []
    for model in np.unique(model_of_pose[np.isfinite(model_of_pose)]):
        of_model = model_of_pose == model
        # Mean errors of images are weighted by their points: the mean over the model's
        # observations.
        weight = np.where(np.isfinite(error[of_model]), np.nan_to_num(points[of_model]), 0.0)
        mean = float(np.nansum(error[of_model] * weight) / weight.sum()) if weight.any() else np.nan
        flat, deep = (residual[of_model] for residual in of_pose)
        figures.append(
            ModelFigures(
                model=int(model),
                images=int(of_model.sum()),
                points_median=_median(points[of_model]),
                reprojection_error_px=mean,
                gps_residual_horizontal_median_m=_median(flat),
                gps_residual_horizontal_max_m=_max(flat),
                gps_residual_3d_median_m=_median(deep),
                gps_residual_3d_max_m=_max(deep),
                predicted_error_median_m=_median(predicted[of_model]),
                doubtful=int((doubt[of_model] != None).sum()),  # noqa: E711 - elementwise
            )
        )
    return sorted(figures, key=lambda figure: (-figure.images, figure.model))


def _max(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else float("nan")


def _median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")
