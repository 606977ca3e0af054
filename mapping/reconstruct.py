"""One tile: features and two-view geometries in, georegistered COLMAP models out."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vladmap.features.base import LocalFeatures
from vladmap.features.colmap import pycolmap
from vladmap.mapping import reasons as why
from vladmap.mapping.camera import Camera
from vladmap.mapping.camera_keys import camera_keys
from vladmap.mapping.child import ChildFailed, call
from vladmap.mapping.evidence import keep_evident, turning_views
from vladmap.mapping.georegister import (
    centres_and_rotations,
    choose_origin,
    georegister,
    positions_of,
)
from vladmap.mapping.graph import connected_components
from vladmap.mapping.judging import judge_tables, trusted_only, verdict_counts
from vladmap.mapping.mapper import (
    MapperOptions,
    bundle_adjust,
    image_names,
    map_globally,
    map_incrementally,
    model_score,
    write_database,
)
from vladmap.mapping.soundness import (
    PairMatches,
    collapsed,
    contradicted,
    misplaced_images,
    read_pairs,
    remove_images,
    unexplained_images,
)
from vladmap.mapping.two_view import two_views_of

TIME_LIMIT_S = 3600.0
# Where fewer of the connected images than this are in sound incremental models, the global mapper
# has its turn.
_ENOUGH_SOUND = 0.8
# Refined intrinsics may move a focal length by this share; further is drift, not calibration.
_MAX_FOCAL_CHANGE = 0.1
_MIN_IMAGES_TO_CALIBRATE = 10
# Each round maps again without the pairs that the last one showed to be aliases.
_ALIAS_ROUNDS = 2
# As many of a tile's pairs the noise of GPS alone may show.
_FEW_COLLAPSING = 0.01
# Taking images out moves the others a little: they are asked again, at most so often.
_SOUND_ROUNDS = 3


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
    judged: pa.Table | None = None,
) -> TileResult:
    """Map the images of one tile and write `output`/sparse/<n>/*.bin and `output`/tile.json.

    `images` are the tile's rows of IMAGES, `two_views` those of TWO_VIEWS among them (others are
    left out), `cameras` the camera of each key of `mapping.camera_keys`. `judged` are the verdicts
    of mapping.judging.JUDGED on them, of the whole collection; without them the tile's pairs are
    judged by themselves. COLMAP runs in a child process, on a database on local disk. A crash or a
    hang is a failure of this tile: it is returned, not raised. Every model of at least
    `options.min_model_size` images is kept, largest first, that has evidence (see
    `mapping.evidence`) and is not contradicted by GPS, drives or its own pairs (see
    `mapping.soundness`). One that GPS places is in the ENU frame of its own origin, in metres, and
    one that it cannot place is marked and stays in a frame of its own. `unregistered` of the report
    says of each image that is in no model why. The same inputs give the same bytes.
    """
    options = options or MapperOptions(max_runtime_s=int(time_limit_s * 0.8))
    rows = images.sort_by("image_id").to_pylist()
    members = {row["image_id"] for row in rows}
    if judged is None:
        judged = judge_tables(images, two_views, options.gps_sigma_m)
    trusted = trusted_only(judged)
    believed = set(zip(*(trusted[f"image_id_{end}"].to_pylist() for end in "ab"), strict=True))
    views = [
        view
        for view in two_views_of(two_views)
        if view.verified
        and (view.image_id_a, view.image_id_b) in believed
        and view.image_id_a in members
        and view.image_id_b in members
    ]
    keys = dict(zip(images["image_id"].to_pylist(), camera_keys(images), strict=True))
    linked = {image_id for view in views for image_id in (view.image_id_a, view.image_id_b)}
    if len(linked) < options.min_model_size:
        failure = f"only {len(linked)} images have trusted pairs"
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
    turned = dict.fromkeys(linked - moving, why.ONLY_TURNS)
    if not moving:
        failure = f"{why.ONLY_TURNS}: {len(views)} pairs of {len(linked)} images"
        return _failed(name, rows, turned, failure)
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
            report = call(_map_tile, work, rows, trusted, options, time_limit_s=time_limit_s)
        except ChildFailed as error:
            failure = f"mapping failed: {error}"
            return _failed(name, rows, dict.fromkeys(linked, failure), failure)
        ids = {row["uri"]: row["image_id"] for row in rows}
        dropped = {ids[uri]: reason for uri, reason in report.pop("dropped").items()}
        registered = {ids[uri] for uri in report.pop("registered")}
        reasons = dict.fromkeys(linked - registered, why.NOT_PLACED) | dropped | turned
        if not report["models"]:
            return _failed(name, rows, reasons, _why_none(report["models_left_out"], dropped))
        shutil.rmtree(output / "sparse", ignore_errors=True)
        shutil.copytree(work / "models", output / "sparse")
    report |= {"tile": name, "images": len(rows), "linked_images": len(linked)}
    report["unregistered"] = _unregistered(rows, registered, reasons)
    report["pairs"] = verdict_counts(judged)
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
    return {image_id: reasons.get(image_id, why.NO_PAIR) for image_id in missing}


def _why_none(left_out: list[dict[str, Any]], dropped: Mapping[str, str]) -> str:
    """One line on why a tile has no model: what was told most often of the images taken out."""
    if left_out:
        parts = "; ".join(f"of {left['images']} images {left['reason']}" for left in left_out)
        return f"no sound model: {parts}"
    if not dropped:
        return "no pair of images starts a model"
    kinds = Counter(reason.partition(":")[0] for reason in dropped.values())
    kind, count = max(kinds.items(), key=lambda item: (item[1], item[0]))
    example = next(reason for reason in dropped.values() if reason.startswith(kind))
    return (
        f"no model has evidence; {count} of the {len(dropped)} images that were mapped: {example}"
    )


def _map_tile(
    work: Path, rows: list[dict[str, Any]], trusted: pa.Table, options: MapperOptions
) -> dict[str, Any]:
    """Map the database in `work`, write models to `work`/models/<n>, return the report."""
    database = work / "database.db"
    long_side = max(max(row["width"], row["height"]) for row in rows)
    tile = _Tile(
        {row["uri"]: row for row in rows}, long_side, options, _Time(options.max_runtime_s)
    )
    mapped, collapsing = _map_without_aliases(database, work, tile, trusted)
    pairs = read_pairs(database)
    found, mapper = _sound_models(mapped, pairs, tile), "incremental"
    enough = found.images() >= _ENOUGH_SOUND * _largest_component(database)
    if not enough and tile.time.allows_another("the global mapper was not tried"):
        # Rotations averaged over all pairs at once do not break where one weak link would break
        # the incremental map; its tracks are fewer, so it is the second choice. On streets it is
        # often wrong as a whole: it is held to the same test, and only what passes counts.
        other = map_globally(database, work / "global", long_side, options)
        alternative = _sound_models(other, pairs, tile)
        if alternative.images() > found.images():
            found, mapper = alternative, "global"
        elif not found.models:
            found.dropped = alternative.dropped | found.dropped
    near = _of_near_pairs(found, database, work, trusted, tile)
    if near is not None:
        found, mapper = near
    reports = []
    for number, (model, report) in enumerate(found.models):
        folder = work / "models" / str(number)
        folder.mkdir(parents=True)
        model.write_binary(folder)
        reports.append({"model": number, **report})
    registered = sorted({name for model, _ in found.models for name in image_names(model)})
    return {
        "mapper": mapper,
        "models": reports,
        "collapsing_pairs": collapsing,
        "out_of_time": tile.time.missed,
        "models_left_out": found.left_out,
        "registered": registered,
        "dropped": {
            name: reason for name, reason in found.dropped.items() if name not in registered
        },
        "far_pairs_left_out": 0 if near is None else _far_pairs(trusted).num_rows,
    }


class _Time:
    """What a tile's time allows: one mapping that ends in time is worth more than two that do not.

    `missed` tells what there was no time for.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._started = seconds, time.monotonic()
        self.missed: list[str] = []

    def allows_another(self, otherwise: str) -> bool:
        """Whether as much again, and half more, would end in time; if not, why is noted."""
        spent = time.monotonic() - self._started
        if 2.5 * spent <= self._seconds:
            return True
        over = spent >= self._seconds
        self.missed.append("the mapper was stopped before its end" if over else otherwise)
        return False


def _far_pairs(trusted: pa.Table) -> pa.Table:
    """Trusted pairs further apart than the error of GPS: others confirm them, and may err alike."""
    return trusted.filter(
        pc.fill_null(pc.greater(trusted["distance_m"], trusted["limit_m"]), False)
    )


def _of_near_pairs(
    found: _Sound, database: Path, work: Path, trusted: pa.Table, tile: _Tile
) -> tuple[_Sound, str] | None:
    """What either mapper makes of the near pairs alone, and its name, if that is more.

    Where a street repeats itself, far pairs of it confirm each other: with eighteen of them no map
    of 29 photographs of one street held, without them all 29 are in one.
    """
    enough = _ENOUGH_SOUND * _largest_component(database)
    far = _far_pairs(trusted)
    if found.images() >= enough or far.num_rows == 0:
        return None
    if not tile.time.allows_another("near pairs alone were not tried"):
        return None
    name_of = {row["image_id"]: name for name, row in tile.by_name.items()}
    with pycolmap.Database.open(database) as opened:
        numbers = {image.name: image.image_id for image in opened.read_all_images()}
        for a, b in zip(*(far[f"image_id_{end}"].to_pylist() for end in "ab"), strict=True):
            opened.delete_two_view_geometry(numbers[name_of[a]], numbers[name_of[b]])
    pairs, best = read_pairs(database), None
    for name, mapper in (("incremental", map_incrementally), ("global", map_globally)):
        mapped = mapper(database, work / f"near-{name}", tile.long_side, tile.options)
        sound = _sound_models(mapped, pairs, tile)
        if sound.images() > (found if best is None else best[0]).images():
            best = sound, name
    return best


@dataclass(frozen=True)
class _Tile:
    by_name: Mapping[str, Mapping[str, Any]]
    long_side: int
    options: MapperOptions
    time: _Time


@dataclass
class _Sound:
    """Models that passed, with their figures; images and models that did not, with the reason."""

    models: list[tuple[pycolmap.Reconstruction, dict[str, Any]]]
    dropped: dict[str, str]
    left_out: list[dict[str, Any]]

    def images(self) -> int:
        """How many images are in some model; one may be in several."""
        return len({name for model, _ in self.models for name in image_names(model)})


def _sound_models(
    mapped: Sequence[pycolmap.Reconstruction], pairs: PairMatches, tile: _Tile
) -> _Sound:
    """Calibrate and place models, whichever mapper made them, and keep what evidence bears out.

    An image without evidence, or that most of its pairs, or GPS and its drive, contradict is taken
    out; a model of which too many are contradicted, or that is left too small, is left out.
    """
    smallest = tile.options.min_model_size
    evident = keep_evident(mapped, smallest)
    dropped, held, left_out = dict(evident.dropped), [], []
    for each in evident.models:
        model = calibrate(each, tile.long_side)
        whole = model.num_reg_images()
        taken = _take_out_contradicted(model, pairs, tile)
        if contradicted(len(taken), whole):
            reasons = Counter(taken.values()).most_common()
            told = ", ".join(f"{count}: {reason}" for reason, count in reasons)
            names = sorted(set(image_names(model)) | set(taken))
            left_out.append({"images": whole, "names": names, "reason": told})
            taken = dict.fromkeys(names, f"{why.MODEL_BY_ALL}: of {whole} images {told}")
        else:
            held.append(model)
        dropped |= taken
    # Calibrating moves points, and those of images taken out are gone.
    final = keep_evident(held, smallest)
    models = [
        (model, place(model, tile.by_name, tile.options.gps_sigma_m)) for model in final.models
    ]
    return _Sound(models, dropped | final.dropped, left_out)


def _take_out_contradicted(
    model: pycolmap.Reconstruction, pairs: PairMatches, tile: _Tile
) -> dict[str, str]:
    """Take out of a model, in place, the images that evidence contradicts; return why each."""
    whole = model.num_reg_images()
    taken: dict[str, str] = {}
    for _ in range(_SOUND_ROUNDS):
        placed = place(model, tile.by_name, tile.options.gps_sigma_m)
        wrong = dict.fromkeys(unexplained_images(model, pairs), why.BY_PAIRS)
        if placed["georegistered"]:
            misplaced = misplaced_images(
                model, tile.by_name, placed["origin"], tile.options.gps_sigma_m
            )
            wrong |= dict.fromkeys(misplaced, why.BY_GPS)
        taken |= wrong
        if not wrong or contradicted(len(taken), whole):
            break
        remove_images(model, sorted(wrong))
        if model.num_reg_images() == 0:
            break
    return taken


def _map_without_aliases(
    database: Path, work: Path, tile: _Tile, trusted: pa.Table
) -> tuple[list[pycolmap.Reconstruction], int]:
    """Map, take out of the database the pairs that the map collapses against GPS, map again."""
    dropped = 0
    name_of = {row["image_id"]: name for name, row in tile.by_name.items()}
    for attempt in range(_ALIAS_ROUNDS + 1):
        models = map_incrementally(
            database, work / f"incremental{attempt}", tile.long_side, tile.options
        )
        if not models or attempt == _ALIAS_ROUNDS:
            break
        largest = pycolmap.Reconstruction(models[0])
        placed = place(largest, tile.by_name, tile.options.gps_sigma_m)
        if not placed["georegistered"]:
            break
        wrong = collapsed(largest, trusted, name_of)
        if len(wrong) <= _FEW_COLLAPSING * trusted.num_rows:
            break
        if not tile.time.allows_another(f"{len(wrong)} pairs that GPS contradicts stayed in"):
            break
        with pycolmap.Database.open(database) as opened:
            numbers = {image.name: image.image_id for image in opened.read_all_images()}
            for a, b in wrong:
                opened.delete_two_view_geometry(numbers[a], numbers[b])
        trusted = _without(trusted, wrong, name_of)
        dropped += len(wrong)
    return models, dropped


def _without(
    pairs: pa.Table, unwanted: list[tuple[str, str]], name_of: Mapping[str, str]
) -> pa.Table:
    gone = set(unwanted)
    ends = zip(*(pairs[f"image_id_{end}"].to_pylist() for end in "ab"), strict=True)
    return pairs.filter(
        pa.array([(name_of[a], name_of[b]) not in gone for a, b in ends], pa.bool_())
    )


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
