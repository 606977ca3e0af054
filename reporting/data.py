"""The data of a report: plain Arrow tables and dicts, which the caller reads from an atlas."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypedDict

import pyarrow as pa

from vladmap.schemas import loop_tables, tables

TWO_VIEW_SUMMARY = pa.schema(
    [
        pa.field("image_id_a", pa.string(), nullable=False),
        pa.field("image_id_b", pa.string(), nullable=False),
        pa.field("inliers", pa.int32(), nullable=False),
        pa.field("configuration", pa.string(), nullable=False),
    ]
)
"""A row of `two_views/` without its matches: the count of inliers and COLMAP's configuration."""

JUDGED_PAIRS = pa.schema(
    [
        ("image_id_a", pa.string()),
        ("image_id_b", pa.string()),
        ("inliers", pa.int32()),
        ("verdict", pa.string()),
        ("probability", pa.float32()),
        ("distance_m", pa.float32()),
    ]
)
"""Rows of `two_views/` that were judged, without their matches."""

MODEL_POSITIONS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("model", pa.int32(), nullable=False),
        pa.field("x", pa.float64(), nullable=False),
        pa.field("y", pa.float64(), nullable=False),
        pa.field("z", pa.float64(), nullable=False),
    ]
)
"""Projection centres in each model's own coordinates, for a collection without any GPS."""


class _TileName(TypedDict):
    name: str


class TileQuality(_TileName, total=False):
    """One tile. A figure that is missing or None is shown as not known."""

    images: int
    registered: int
    models: int
    points: int
    reprojection_error_px: float | None
    gps_residual_horizontal_median_m: float | None
    gps_residual_horizontal_max_m: float | None
    gps_residual_3d_median_m: float | None
    gps_residual_3d_max_m: float | None
    predicted_error_median_m: float | None
    doubtful: int | None
    seconds: float | None
    failure: str | None


class MergeDecision(TypedDict, total=False):
    """One attempt to join two models; residuals are of their common images.

    GPS residuals are horizontal, medians of the images of `a`, or of those of `b` where they speak
    against it.
    """

    a: str
    b: str
    merged: bool
    common_images: int
    residual_median_m: float | None
    residual_max_m: float | None
    turn_median_deg: float | None
    gps_residual_horizontal_before_m: float | None
    gps_residual_horizontal_after_m: float | None
    reason: str


class _StageName(TypedDict):
    stage: str


class StageTiming(_StageName, total=False):
    """The timing of a stage. `rate` is elements per second; `reused` were committed before."""

    elements: int
    reused: int
    seconds: float
    rate: float | None
    device: str
    unit: str


class IndexInfo(TypedDict, total=False):
    """The facts of `index.json`; `recall` (0 to 1) is that of the index against exact search."""

    model: str
    factory: str
    count: int
    dimension: int
    recall: float | None
    recall_at: int


class TruthFigures(TypedDict):
    """The comparison with the truth, as `report/truth.json` has it; shares are 0 to 1.

    `map` is what mapping.check.check_map says, `retrieval` what evaluation.map_truth measures, None
    where there were no descriptors. Where it is not `current`, the atlas has changed since, and
    only that is shown.
    """

    current: bool
    map: dict[str, Any]
    retrieval: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Match:
    """A retrieved image. `thumbnail` is a JPEG file's bytes, or None where it cannot be read."""

    image_id: str
    similarity: float
    gps_distance_m: float | None
    thumbnail: bytes | None


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """A query and its best matches, best first."""

    image_id: str
    thumbnail: bytes | None
    matches: Sequence[Match]


@dataclasses.dataclass(frozen=True)
class RouteStep:
    """An instruction of a route, `at_m` metres from its start; `thumbnail` as of a Match."""

    words: str
    at_m: float
    image_id: str
    thumbnail: bytes | None


@dataclasses.dataclass(frozen=True)
class RouteExample:
    """A route through the map: the ids of its photographs in order, and what to do on it.

    `error_m` is the mean of the predicted errors of its photographs, None where they are not known.
    """

    image_ids: Sequence[str]
    length_m: float
    error_m: float | None
    steps: Sequence[RouteStep]


@dataclasses.dataclass(frozen=True)
class ReportData:
    """Everything that a report shows.

    `images`, `rejects`, `pairs` and `poses` follow `schemas.tables`; only the columns that the
    report reads must be there (`pairs` is only counted). `two_views` follows TWO_VIEW_SUMMARY. A
    pose whose latitude is null or NaN has no place on Earth; `model_positions` then places it.
    `remarks` are sentences on the models that their reader must know. `unregistered` follows its
    schema, `pictures` are JPEG files of some of them by image_id. `route` is an example of one.
    `judged` follows JUDGED_PAIRS, `loops` and `drives` schemas.loop_tables; `in_several_tiles` are
    the ids of photographs that lie in two tiles or more, where these are joined.
    `created` is shown as it is given: two reports of the same data are equal byte for byte.
    """

    title: str
    created: str
    images: pa.Table
    rejects: pa.Table
    pairs: pa.Table
    two_views: pa.Table
    poses: pa.Table
    tiles: Sequence[TileQuality] = ()
    merges: Sequence[MergeDecision] = ()
    remarks: Sequence[str] = ()
    stages: Sequence[StageTiming] = ()
    index: IndexInfo | None = None
    retrievals: Sequence[Retrieval] = ()
    model_positions: pa.Table | None = None
    truth: TruthFigures | None = None
    software: dict[str, str] = dataclasses.field(default_factory=dict)
    unregistered: pa.Table = dataclasses.field(default_factory=tables.UNREGISTERED.empty_table)
    pictures: dict[str, bytes] = dataclasses.field(default_factory=dict)
    features: str = "sift"
    route: RouteExample | None = None
    judged: pa.Table = dataclasses.field(default_factory=JUDGED_PAIRS.empty_table)
    loops: pa.Table = dataclasses.field(default_factory=loop_tables.LOOPS.empty_table)
    drives: pa.Table = dataclasses.field(default_factory=loop_tables.DRIVES.empty_table)
    in_several_tiles: Sequence[str] = ()
