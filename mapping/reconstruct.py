"""One tile: features and two-view geometries in, georegistered COLMAP models out."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mapping.aliasing import collapsed, implausible
from mapping.cameras import camera_keys
from mapping.child import ChildFailed, call
from mapping.colmap import Camera, pycolmap
from mapping.features import LocalFeatures
from mapping.georegister import (
    centres_and_rotations,
    choose_origin,
    georegister,
    positions_of,
)
from mapping.graph import connected_components
from mapping.mapper import (
    MapperOptions,
    bundle_adjust,
    map_globally,
    map_incrementally,
    model_score,
    write_database,
)
from mapping.matching import two_views_of

TIME_LIMIT_S = 3600.0
# An incremental map in which fewer of the connected images than this are registered, and not
# contradicted by GPS, is compared with the global one.
_ENOUGH_SOUND = 0.97
# Refined intrinsics may move a focal length by this share; further is drift, not calibration.
_MAX_FOCAL_CHANGE = 0.1
_MIN_IMAGES_TO_CALIBRATE = 10
# Each round maps again without the pairs that the last one showed to be aliases.
_ALIAS_ROUNDS = 3


@dataclass(frozen=True)
class TileResult:
    """What became of a tile: `report` is tile.json; `failure` says why there is no model."""

    name: str
    report: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None


def reconstruct_tile(
    name: str,
    output: Path,
    images: pa.Table,
    read_features: Callable[[str], LocalFeatures],
    two_views: pa.Table,
    cameras: Mapping[str, Camera],
    options: MapperOptions | None = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> TileResult:
    """Map the images of one tile and write `output`/sparse/<n>/*.bin and `output`/tile.json.

    `images` are the tile's rows of IMAGES, `two_views` those of TWO_VIEWS among them (others are
    left out), `cameras` the camera of each `mapping.cameras.camera_key`. COLMAP runs in a child
    process, on a database on local disk. A crash or a hang is a failure of this tile: it is
    returned, not raised. Every model of at least `options.min_model_size` images is kept, largest
    first; one that GPS places is in the ENU frame of tile.json's origin, in metres, and one that
    it cannot place is marked and stays in a frame of its own. The same inputs give the same bytes.
    """
    options = options or MapperOptions(max_runtime_s=int(time_limit_s * 0.8))
    rows = images.sort_by("image_id").to_pylist()
    members = {row["image_id"] for row in rows}
    views = [
        view
        for view in two_views_of(two_views)
        if view.verified and view.image_id_a in members and view.image_id_b in members
    ]
    origin = _origin(rows)
    aliased = implausible(views, rows, origin, options.gps_sigma_m)
    views = [view for view, bad in zip(views, aliased, strict=True) if not bad]
    keys = dict(zip(images["image_id"].to_pylist(), camera_keys(images), strict=True))
    linked = {image_id for view in views for image_id in (view.image_id_a, view.image_id_b)}
    if len(linked) < options.min_model_size:
        return TileResult(name, failure=f"only {len(linked)} images have verified pairs")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vladmap-tile-") as folder:
        work = Path(folder)
        write_database(
            work / "database.db",
            {image_id: row["uri"] for row in rows if (image_id := row["image_id"]) in linked},
            cameras,
            keys,
            {image_id: read_features(image_id) for image_id in sorted(linked)},
            views,
        )
        try:
            report = call(_map_tile, work, rows, options, time_limit_s=time_limit_s)
        except ChildFailed as error:
            return TileResult(name, failure=f"mapping failed: {error}")
        if not report["models"]:
            return TileResult(name, failure="no pair of images starts a model")
        shutil.rmtree(output / "sparse", ignore_errors=True)
        shutil.copytree(work / "models", output / "sparse")
    report |= {"tile": name, "images": len(rows), "linked_images": len(linked)}
    report["aliased_pairs"] += int(aliased.sum())
    (output / "tile.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    return TileResult(name, report)


def _map_tile(work: Path, rows: list[dict[str, Any]], options: MapperOptions) -> dict[str, Any]:
    """Map the database in `work`, write models to `work`/models/<n>, return the report."""
    database = work / "database.db"
    long_side = max(max(row["width"], row["height"]) for row in rows)
    origin = _origin(rows)
    by_name = {row["uri"]: row for row in rows}

    def verdict(models: list[pycolmap.Reconstruction]) -> tuple[int, float]:
        largest = models[0]
        outliers = gps_outliers(largest, by_name, origin, options.gps_sigma_m)
        return largest.num_reg_images() - outliers, model_score(largest, long_side)

    models, aliased = _map_without_aliases(database, work, by_name, origin, long_side, options)
    mapper = "incremental"
    sound = verdict(models)[0] if models else 0
    if sound < _ENOUGH_SOUND * _largest_component(database):
        # Rotations averaged over all pairs at once do not break where one weak link would break
        # the incremental map; its tracks are fewer, so it is the second choice.
        alternative = map_globally(database, work / "global", long_side, options)
        if alternative and (not models or verdict(alternative) > verdict(models)):
            models, mapper = alternative, "global"
    reports = []
    for number, mapped in enumerate(models):
        model = calibrate(mapped, long_side)
        report = place(model, by_name, origin, options.gps_sigma_m)
        folder = work / "models" / str(number)
        folder.mkdir(parents=True)
        model.write_binary(folder)
        reports.append({"model": number, **report})
    return {
        "mapper": mapper,
        "origin": list(origin),
        "models": reports,
        "aliased_pairs": aliased,
    }


def _map_without_aliases(
    database: Path,
    work: Path,
    by_name: Mapping[str, Mapping[str, Any]],
    origin: tuple[float, float, float],
    long_side: int,
    options: MapperOptions,
) -> tuple[list[pycolmap.Reconstruction], int]:
    """Map, take out of the database the pairs that the map collapses against GPS, map again."""
    dropped = 0
    for attempt in range(_ALIAS_ROUNDS + 1):
        models = map_incrementally(database, work / f"incremental{attempt}", long_side, options)
        if not models or attempt == _ALIAS_ROUNDS:
            break
        largest = pycolmap.Reconstruction(models[0])
        if not place(largest, by_name, origin, options.gps_sigma_m)["georegistered"]:
            break
        with pycolmap.Database.open(database) as opened:
            names = {image.image_id: image.name for image in opened.read_all_images()}
            numbers = {name: number for number, name in names.items()}
            ids, _ = opened.read_two_view_geometry_num_inliers()
            ends = [pycolmap.pair_id_to_image_pair(pair) for pair in ids]
            pairs = [(names[a], names[b]) for a, b in ends]
            wrong = collapsed(largest, pairs, by_name, origin, options.gps_sigma_m)
            for a, b in wrong:
                opened.delete_two_view_geometry(numbers[a], numbers[b])
        dropped += len(wrong)
        if not wrong:
            break
    return models, dropped


def _origin(rows: list[dict[str, Any]]) -> tuple[float, float, float]:
    latitude, longitude, altitude = (
        _column(rows, name) for name in ("latitude", "longitude", "altitude")
    )
    return choose_origin(latitude, longitude, altitude)


def place(
    model: pycolmap.Reconstruction,
    by_name: Mapping[str, Mapping[str, Any]],
    origin: tuple[float, float, float],
    gps_sigma_m: float,
) -> dict[str, Any]:
    """Carry `model`, in place, into the ENU frame at `origin` by GPS; return its figures.

    Without enough GPS the model stays in its own frame and `georegistered` is false.
    """
    names, centres, rotations = centres_and_rotations(model)
    gps = positions_of([by_name[name] for name in names], origin, gps_sigma_m)
    found = georegister(centres, rotations, gps)
    if found is not None:
        model.transform(found.enu_from_model.to_colmap())
    model.update_point_3d_errors()
    return {
        "images": model.num_reg_images(),
        "points": model.num_points3D(),
        "observations": model.compute_num_observations(),
        "mean_track_length": model.compute_mean_track_length(),
        "reprojection_error_px": model.compute_mean_reprojection_error(),
        "georegistered": found is not None,
        **(found.quality() if found is not None else {}),
    }


def gps_outliers(
    model: pycolmap.Reconstruction,
    by_name: Mapping[str, Mapping[str, Any]],
    origin: tuple[float, float, float],
    gps_sigma_m: float,
) -> int:
    """Return how many of a model's images lie elsewhere than their GPS says, by 3 sigma."""
    names, centres, rotations = centres_and_rotations(model)
    gps = positions_of([by_name[name] for name in names], origin, gps_sigma_m)
    found = georegister(centres, rotations, gps)
    if found is None:
        return 0
    return int((np.isfinite(found.horizontal) & ~found.inliers).sum())


def calibrate(model: pycolmap.Reconstruction, long_side_px: int) -> pycolmap.Reconstruction:
    """Return `model` with intrinsics, poses and points refined together, where that is safe.

    With few images, or where a focal length runs off, the model is returned as it is.
    """
    if model.num_reg_images() < _MIN_IMAGES_TO_CALIBRATE:
        return model
    refined = pycolmap.Reconstruction(model)
    bundle_adjust(refined, refine_focal=True, refine_distortion=True)
    for number, camera in model.cameras.items():
        change = refined.camera(number).mean_focal_length() / camera.mean_focal_length() - 1.0
        if not abs(change) <= _MAX_FOCAL_CHANGE:
            return model
    better = model_score(refined, long_side_px) >= model_score(model, long_side_px)
    return refined if better else model


def _largest_component(database: Path) -> int:
    """Return how many images the largest set connected by verified pairs holds."""
    with pycolmap.Database.open(database) as opened:
        pair_ids, counts = opened.read_two_view_geometry_num_inliers()
        total = opened.num_images()
    pairs = np.array([pycolmap.pair_id_to_image_pair(pair_id) for pair_id in pair_ids], np.int64)
    if len(pairs) == 0:
        return 0
    pairs = pairs[np.asarray(counts) > 0]
    return int(np.bincount(connected_components(total + 1, pairs[:, 0], pairs[:, 1])).max())


def _column(rows: list[dict[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)
