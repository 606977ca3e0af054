"""Two-view geometry of image pairs from their matches, and the table of both.

Every function here is a function of its arguments alone: seeded, free of shared state, and safe to
call from several threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.features.base import LocalFeatures, Matches
from vladmap.features.colmap import pycolmap
from vladmap.mapping.camera import Camera, max_error_px
from vladmap.mapping.colmap import SEED, rotation_of, wxyz
from vladmap.schemas.tables import JUDGEMENT, TWO_VIEWS

MIN_INLIERS = 15


# Configurations whose inliers join tracks: a watermark is not part of the scene.
VERIFIED = frozenset(
    {"CALIBRATED", "UNCALIBRATED", "PLANAR", "PANORAMIC", "PLANAR_OR_PANORAMIC", "MULTIPLE"}
)


@dataclass(frozen=True)
class TwoView:
    """The verified geometry of one pair, image_id_a < image_id_b.

    `matches` and `inliers` are (m, 2) uint32 keypoint indices; `fundamental`, `essential` and
    `homography` (3, 3) or None; `rotation` (4,) w, x, y, z and `translation` (3,) of unit length
    are b_from_a, or None where the configuration has no pose.
    """

    image_id_a: str
    image_id_b: str
    configuration: str
    matches: Matches
    inliers: Matches
    fundamental: NDArray[np.float64] | None = None
    essential: NDArray[np.float64] | None = None
    homography: NDArray[np.float64] | None = None
    rotation: NDArray[np.float64] | None = None
    translation: NDArray[np.float64] | None = None

    @property
    def verified(self) -> bool:
        """Whether the two images see the same scene, by the geometry of their matches."""
        return self.configuration in VERIFIED and len(self.inliers) >= MIN_INLIERS


def verify(
    image_id_a: str,
    image_id_b: str,
    a: LocalFeatures,
    b: LocalFeatures,
    matches: Matches,
    camera_a: Camera,
    camera_b: Camera,
    min_inliers: int = MIN_INLIERS,
    min_inlier_share: float = 0.0,
) -> TwoView:
    """Return the two-view geometry of `matches`, by COLMAP's estimator with a fixed seed.

    Essential matrix, fundamental matrix and homography compete (Schoenberger and Frahm, CVPR
    2016): the configuration says which explains the pair, and tells planar scenes, pure rotations
    and watermarks apart. A pair of fewer than `min_inliers` inliers, or of a lower share of its
    matches than `min_inlier_share` (see `features.base.Matcher`), is DEGENERATE, without any.
    """
    if image_id_a >= image_id_b:
        raise ValueError("image_id_a must be less than image_id_b")
    failed = TwoView(image_id_a, image_id_b, "DEGENERATE", matches, np.zeros((0, 2), np.uint32))
    if len(matches) < min_inliers:
        return failed
    options = pycolmap.TwoViewGeometryOptions(
        min_num_inliers=min_inliers, compute_relative_pose=True
    )
    options.ransac.random_seed = SEED
    options.ransac.max_error = max_error_px(max(camera_a.long_side_px, camera_b.long_side_px))
    # COLMAP draws its samples from a generator of each thread: seed the one of this thread.
    pycolmap.set_random_seed(SEED)
    geometry = pycolmap.estimate_two_view_geometry(
        camera_a.to_colmap(1),
        np.ascontiguousarray(a.keypoints[:, :2], np.float64),
        camera_b.to_colmap(2),
        np.ascontiguousarray(b.keypoints[:, :2], np.float64),
        matches,
        options,
    )
    inliers = np.asarray(geometry.inlier_matches, np.uint32).reshape(-1, 2)
    if len(inliers) < max(min_inliers, min_inlier_share * len(matches)):
        return failed
    pose = geometry.cam2_from_cam1
    return TwoView(
        image_id_a,
        image_id_b,
        pycolmap.TwoViewGeometryConfiguration(geometry.config).name,
        matches,
        inliers,
        geometry.F,
        geometry.E,
        geometry.H,
        None if pose is None else wxyz(pose.rotation),
        None if pose is None else np.asarray(pose.translation, np.float64),
    )


def fundamental_inliers(
    a: LocalFeatures, b: LocalFeatures, matches: Matches, max_error_px: float
) -> int:
    """Return how many `matches` one fundamental matrix explains to within `max_error_px`.

    It needs no camera, as a re-ranking of candidates from anywhere wants it: COLMAP's LO-RANSAC
    with a fixed seed. Fewer than eight matches explain nothing.
    """
    if len(matches) < 8:
        return 0
    options = pycolmap.RANSACOptions(max_error=max_error_px, max_num_trials=2000, random_seed=SEED)
    pycolmap.set_random_seed(SEED)
    estimate = pycolmap.estimate_fundamental_matrix(
        np.ascontiguousarray(a.keypoints[matches[:, 0], :2], np.float64),
        np.ascontiguousarray(b.keypoints[matches[:, 1], :2], np.float64),
        options,
    )
    return 0 if estimate is None else int(estimate["num_inliers"])


def to_colmap_geometry(view: TwoView) -> pycolmap.TwoViewGeometry:
    """Return the COLMAP two-view geometry of a row, as a database stores it."""
    geometry = pycolmap.TwoViewGeometry()
    geometry.config = int(pycolmap.TwoViewGeometryConfiguration.__members__[view.configuration])
    geometry.inlier_matches = view.inliers
    geometry.F, geometry.E, geometry.H = view.fundamental, view.essential, view.homography
    if view.rotation is not None and view.translation is not None:
        geometry.cam2_from_cam1 = pycolmap.Rigid3d(rotation_of(view.rotation), view.translation)
    return geometry


def two_view_table(views: Iterable[TwoView]) -> pa.Table:
    """Return the two-view rows as a table of schema TWO_VIEWS, sorted by image ids.

    Its columns JUDGEMENT are null: pairs are judged later, all together.
    """
    ordered = sorted(views, key=lambda view: (view.image_id_a, view.image_id_b))
    columns: dict[str, Any] = {
        "image_id_a": [view.image_id_a for view in ordered],
        "image_id_b": [view.image_id_b for view in ordered],
        "configuration": [view.configuration for view in ordered],
        "matches": _match_lists([view.matches for view in ordered]),
        "inliers": _match_lists([view.inliers for view in ordered]),
    }
    for name in ("fundamental", "essential", "homography"):
        columns[name] = [_flat(getattr(view, name)) for view in ordered]
    for position, name in enumerate(("qw", "qx", "qy", "qz")):
        columns[name] = [_item(view.rotation, position) for view in ordered]
    for position, name in enumerate(("tx", "ty", "tz")):
        columns[name] = [_item(view.translation, position) for view in ordered]
    columns |= {name: pa.nulls(len(ordered), TWO_VIEWS.field(name).type) for name in JUDGEMENT}
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field, column in ((field, columns[field.name]) for field in TWO_VIEWS)
    ]
    return pa.Table.from_arrays(arrays, schema=TWO_VIEWS)


def two_views_of(table: pa.Table) -> Iterator[TwoView]:
    """Yield the rows of a TWO_VIEWS table, in its order.

    Where it was read without its matches or matrices, `matches` are the inliers and matrices None.
    """
    table = table.combine_chunks()
    inliers = _matches_of(table["inliers"])
    lists = [name for name in ("matches", "inliers") if name in table.column_names]
    matches = _matches_of(table["matches"]) if "matches" in lists else inliers
    small = table.drop_columns(lists).to_pylist()
    for row, row_matches, row_inliers in zip(small, matches, inliers, strict=True):
        yield TwoView(
            row["image_id_a"],
            row["image_id_b"],
            row["configuration"],
            row_matches,
            row_inliers,
            _square(row.get("fundamental")),
            _square(row.get("essential")),
            _square(row.get("homography")),
            _vector(row, "qw", "qx", "qy", "qz"),
            _vector(row, "tx", "ty", "tz"),
        )


def inlier_counts(table: pa.Table) -> NDArray[np.int64]:
    """Return the number of inliers of each row of a TWO_VIEWS table; 0 where not verified."""
    if table.num_rows == 0:
        return np.zeros(0, np.int64)
    lists = table["inliers"].combine_chunks()
    counts = np.asarray(lists.value_lengths(), np.int64)
    verified = np.isin(table["configuration"].to_numpy(), list(VERIFIED))
    return np.where(verified & (counts >= MIN_INLIERS), counts, 0)


def _match_lists(items: list[Matches]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum([len(item) for item in items])]).astype(np.int32)
    flat = np.concatenate([*items, np.zeros((0, 2), np.uint32)]).astype(np.uint32)
    pairs = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), 2)
    return pa.ListArray.from_arrays(pa.array(offsets), pairs)


def _matches_of(column: pa.ChunkedArray) -> list[Matches]:
    lists = column.combine_chunks()
    if len(lists) == 0:
        return []
    flat = np.asarray(lists.flatten().flatten(), np.uint32).reshape(-1, 2)
    ends = np.cumsum(np.asarray(lists.value_lengths(), np.int64))
    return np.split(flat, ends[:-1])


def _flat(matrix: NDArray[np.float64] | None) -> list[float] | None:
    return None if matrix is None else [float(value) for value in np.ravel(matrix)]


def _square(values: list[float] | None) -> NDArray[np.float64] | None:
    return None if values is None else np.asarray(values, np.float64).reshape(3, 3)


def _item(vector: NDArray[np.float64] | None, position: int) -> float | None:
    return None if vector is None else float(vector[position])


def _vector(row: dict[str, Any], *names: str) -> NDArray[np.float64] | None:
    values = [row[name] for name in names]
    return None if values[0] is None else np.asarray(values, np.float64)
