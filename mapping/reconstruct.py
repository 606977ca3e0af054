"""One tile: features and two-view geometries in, georegistered COLMAP models out."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from mapping.evidence import Kept, keep_evident, turning_views
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
    image_names,
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
_NO_PAIR = "no verified pair with another photograph of its tile"
_TURNED = "no parallax: a turn on the spot explains every verified pair"
_NOT_PLACED = "the mapper found no place for it among the others"


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
    returned, not raised. Every model of at least `options.min_model_size` images that have evidence
    (see `mapping.evidence`) is kept, largest first; one that GPS places is in the ENU frame of its
    own origin, in metres, and one that it cannot place is marked and stays in a frame of its own.
    `unregistered` of the report says of each image that is in no model why. The same inputs give
    the same bytes.
    """
    options = options or MapperOptions(max_runtime_s=int(time_limit_s * 0.8))
    rows = images.sort_by("image_id").to_pylist()
    members = {row["image_id"] for row in rows}
    views = [
        view
        for view in two_views_of(two_views)
        if view.verified and view.image_id_a in members and view.image_id_b in members
    ]
    origin = origin_of(rows)
    aliased = implausible(views, rows, origin, options.gps_sigma_m)
    views = [view for view, bad in zip(views, aliased, strict=True) if not bad]
    keys = dict(zip(images["image_id"].to_pylist(), camera_keys(images), strict=True))
    linked = {image_id for view in views for image_id in (view.image_id_a, view.image_id_b)}
    if len(linked) < options.min_model_size:
        failure = f"only {len(linked)} images have verified pairs"
        return _failed(name, rows, dict.fromkeys(linked, failure), failure)
    features = {image_id: read_features(image_id) for image_id in sorted(linked)}
    turning = turning_views(views, features, {image: cameras[keys[image]] for image in linked})
    moving = {
        image_id
        for view, turns in zip(views, turning, strict=True)
        if not turns
        for image_id in (view.image_id_a, view.image_id_b)
    }
    # Of an image whose every pair is a turn, that is why, whatever the mapper makes of it.
    turned = dict.fromkeys(linked - moving, _TURNED)
    if not moving:
        return _failed(name, rows, turned, f"{_TURNED}: {len(views)} pairs of {len(linked)} images")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vladmap-tile-") as folder:
        work = Path(folder)
        write_database(
            work / "database.db",
            {image_id: row["uri"] for row in rows if (image_id := row["image_id"]) in linked},
            cameras,
            keys,
            features,
            views,
        )
        try:
            report = call(_map_tile, work, rows, options, time_limit_s=time_limit_s)
        except ChildFailed as error:
            failure = f"mapping failed: {error}"
            return _failed(name, rows, dict.fromkeys(linked, failure), failure)
        ids = {row["uri"]: row["image_id"] for row in rows}
        dropped = {ids[uri]: reason for uri, reason in report.pop("dropped").items()}
        registered = {ids[uri] for uri in report.pop("registered")}
        reasons = dict.fromkeys(linked - registered, _NOT_PLACED) | dropped | turned
        if not report["models"]:
            return _failed(name, rows, reasons, _why_none(dropped))
        shutil.rmtree(output / "sparse", ignore_errors=True)
        shutil.copytree(work / "models", output / "sparse")
    report |= {"tile": name, "images": len(rows), "linked_images": len(linked)}
    report["unregistered"] = _unregistered(rows, registered, reasons)
    report["aliased_pairs"] += int(aliased.sum())
    (output / "tile.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    return TileResult(name, report)


def _failed(
    name: str, rows: list[dict[str, Any]], reasons: Mapping[str, str], failure: str
) -> TileResult:
    report = {"unregistered": _unregistered(rows, set(), reasons)}
    return TileResult(name, report, failure)


def _unregistered(
    rows: list[dict[str, Any]], registered: set[str], reasons: Mapping[str, str]
) -> dict[str, str]:
    """Why each image of the tile that is in none of its models is not."""
    missing = (row["image_id"] for row in rows if row["image_id"] not in registered)
    return {image_id: reasons.get(image_id, _NO_PAIR) for image_id in missing}


def _why_none(dropped: Mapping[str, str]) -> str:
    """One line on why a tile has no model: what was told most often of the images taken out."""
    if not dropped:
        return "no pair of images starts a model"
    kinds = Counter(reason.partition(":")[0] for reason in dropped.values())
    kind, count = max(kinds.items(), key=lambda item: (item[1], item[0]))
    example = next(reason for reason in dropped.values() if reason.startswith(kind))
    return (
        f"no model has evidence; {count} of the {len(dropped)} images that were mapped: {example}"
    )


def _map_tile(work: Path, rows: list[dict[str, Any]], options: MapperOptions) -> dict[str, Any]:
    """Map the database in `work`, write models to `work`/models/<n>, return the report."""
    database = work / "database.db"
    long_side = max(max(row["width"], row["height"]) for row in rows)
    by_name = {row["uri"]: row for row in rows}

    def verdict(models: list[pycolmap.Reconstruction]) -> tuple[int, float]:
        largest = models[0]
        outliers = gps_outliers(largest, by_name, options.gps_sigma_m)
        return largest.num_reg_images() - outliers, model_score(largest, long_side)

    mapped, aliased = _map_without_aliases(database, work, by_name, long_side, options)
    found = keep_evident(mapped, options.min_model_size)
    mapper = "incremental"
    sound = verdict(found.models)[0] if found.models else 0
    if sound < _ENOUGH_SOUND * _largest_component(database):
        # Rotations averaged over all pairs at once do not break where one weak link would break
        # the incremental map; its tracks are fewer, so it is the second choice.
        mapped = map_globally(database, work / "global", long_side, options)
        other = keep_evident(mapped, options.min_model_size)
        if other.models and (not found.models or verdict(other.models) > verdict(found.models)):
            found, mapper = other, "global"
        elif not found.models:
            found = Kept([], other.dropped | found.dropped)
    # Adjusting moves points.
    adjusted = [calibrate(model, long_side) for model in found.models]
    kept = keep_evident(adjusted, options.min_model_size)
    reports = []
    for number, model in enumerate(kept.models):
        report = place(model, by_name, options.gps_sigma_m)
        folder = work / "models" / str(number)
        folder.mkdir(parents=True)
        model.write_binary(folder)
        reports.append({"model": number, **report})
    registered = sorted({name for model in kept.models for name in image_names(model)})
    return {
        "mapper": mapper,
        "models": reports,
        "aliased_pairs": aliased,
        "registered": registered,
        "dropped": {
            name: reason
            for name, reason in (found.dropped | kept.dropped).items()
            if name not in registered
        },
    }


def _map_without_aliases(
    database: Path,
    work: Path,
    by_name: Mapping[str, Mapping[str, Any]],
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
        placed = place(largest, by_name, options.gps_sigma_m)
        if not placed["georegistered"]:
            break
        with pycolmap.Database.open(database) as opened:
            names = {image.image_id: image.name for image in opened.read_all_images()}
            numbers = {name: number for number, name in names.items()}
            ids, _ = opened.read_two_view_geometry_num_inliers()
            ends = [pycolmap.pair_id_to_image_pair(pair) for pair in ids]
            pairs = [(names[a], names[b]) for a, b in ends]
            wrong = collapsed(largest, pairs, by_name, placed["origin"], options.gps_sigma_m)
            for a, b in wrong:
                opened.delete_two_view_geometry(numbers[a], numbers[b])
        dropped += len(wrong)
        if not wrong:
            break
    return models, dropped


def origin_of(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """Return the ENU origin amid the GPS of rows of IMAGES; see `choose_origin`."""
    latitude, longitude, altitude = (
        _column(rows, name) for name in ("latitude", "longitude", "altitude")
    )
    return choose_origin(latitude, longitude, altitude)


def place(
    model: pycolmap.Reconstruction, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float
) -> dict[str, Any]:
    """Carry `model`, in place, by GPS into the ENU frame at its own `origin`; return its figures.

    The origin is amid the GPS of the model's own images: the up of an ENU frame is that of its
    origin alone, and leans by a degree for each 111 km from there. Without enough GPS the model
    stays in its own frame and `georegistered` is false.
    """
    names, centres, rotations = centres_and_rotations(model)
    rows = [by_name[name] for name in names]
    origin = origin_of(rows)
    found = georegister(centres, rotations, positions_of(rows, origin, gps_sigma_m))
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
        "origin": list(origin),
        **(found.quality() if found is not None else {}),
    }


def gps_outliers(
    model: pycolmap.Reconstruction,
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float,
) -> int:
    """Return how many of a model's images lie elsewhere than their GPS says, by 3 sigma."""
    names, centres, rotations = centres_and_rotations(model)
    rows = [by_name[name] for name in names]
    found = georegister(centres, rotations, positions_of(rows, origin_of(rows), gps_sigma_m))
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


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)
