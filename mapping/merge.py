"""Merging: tiles' models into as few as agree, each merge proved before it is kept.

Tiles share local features: one image has the same keypoints in each, so that two tracks that meet
in one keypoint are one track. COLMAP has no merge of reconstructions in Python; this one joins
tracks exactly and refuses to join what does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.features.colmap import pycolmap
from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.mapping import reasons as why
from vladmap.mapping.check import best_similarity
from vladmap.mapping.colmap import SEED, wxyz
from vladmap.mapping.evidence import keep_evident
from vladmap.mapping.georegister import (
    DEFAULT_ACCURACY_M,
    centres_and_rotations,
    georegister,
    positions_of,
)
from vladmap.mapping.graph import connected_components
from vladmap.mapping.mapper import MapperOptions, bundle_adjust
from vladmap.mapping.reconstruct import place
from vladmap.mapping.soundness import contradicted, misplaced_images, remove_images
from vladmap.photos.geometry import boxes, points_wkb, with_geo_metadata
from vladmap.schemas import tables

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Origin = tuple[float, float, float]

_MIN_COMMON_IMAGES = 3
_MIN_COMMON_POINTS = 30
# A common image may differ by this much after the alignment: metres (or, without GPS, the share of
# the common images' extent), and degrees.
_MAX_SHIFT_M = 1.0
_MAX_SHIFT_SHARE = 0.05
_MAX_TURN_DEG = 3.0
# Of the common images so many may differ: each of them is then taken out of one model or of both,
# and stays in that in which it sees so many times the points.
_MAX_TORN = 0.3
_CLEARLY_MORE = 1.5
# Further apart than so many limits, one of two places is wrong; nearer, the models are bent.
_FAR = 4.0
_MAX_POINTS_DRAWN = 5000
_ROUNDS = 3
# Of a joined model so many images may be contradicted by GPS and drives that were not before.
_MAX_NEW_MISPLACED = 0.05


@dataclass
class TileModel:
    """A model with its name, its ENU origin, and whether it is in that frame or one of its own.

    `parts`: how many tiles' models are in it; `dropped`: images taken out of it, and why.
    """

    name: str
    model: pycolmap.Reconstruction
    origin: Origin
    georegistered: bool
    parts: int = 1
    dropped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Merged:
    """What became of the tiles: models with most images first, their figures, every decision.

    `unregistered` says why an image of some tile's model (its name) is in none of these,
    `left_out` which models GPS contradicts.
    """

    models: list[TileModel]
    reports: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    unregistered: dict[str, str]
    left_out: list[dict[str, Any]]


def read_model(folder: Path, name: str, origin: Sequence[float], georegistered: bool) -> TileModel:
    """Read COLMAP's binary files from a folder."""
    latitude, longitude, altitude = origin
    model = pycolmap.Reconstruction(str(folder))
    return TileModel(name, model, (latitude, longitude, altitude), georegistered)


def merge_tiles(
    tiles: Sequence[TileModel],
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float = DEFAULT_ACCURACY_M,
    min_model_size: int = MapperOptions.min_model_size,
) -> Merged:
    """Join models that share images, largest first, as long as the joins hold.

    `by_name` gives each COLMAP image name its row of IMAGES. A join is kept only where the common
    images agree in place and direction and GPS and drives bear the whole out; a refused one is
    reported with its figures. What is joined is adjusted and georegistered as a whole, about an
    origin of its own. Images that have no evidence in the result are taken out of it.
    """
    waiting = sorted(tiles, key=lambda tile: (-tile.model.num_reg_images(), tile.name))
    decisions: list[dict[str, Any]] = []
    finished: list[TileModel] = []
    while waiting:
        base = waiting.pop(0)
        refused: set[str] = set()
        while partner := _best_partner(base, waiting, refused):
            joined, decision = _join(base, partner, by_name, gps_sigma_m)
            decisions.append(decision)
            if joined is None:
                refused.add(partner.name)
                continue
            waiting.remove(partner)
            base, refused = joined, set()
        finished.append(base)
    held = [(tile, _held(tile, by_name, gps_sigma_m)) for tile in finished]
    left_out = [
        {"name": tile.name, "images": len(tile.dropped), "reason": max(tile.dropped.values())}
        for tile, holds in held
        if not holds
    ]
    sound = _once_each([tile for tile, holds in held if holds])
    finished, dropped = _evident(sound, by_name, gps_sigma_m, min_model_size)
    for tile, _ in held:
        dropped |= tile.dropped
    registered = {name for tile in finished for name in _names(tile)}
    unregistered = {name: dropped[name] for name in sorted(set(dropped) - registered)}
    finished.sort(key=lambda tile: (-tile.model.num_reg_images(), tile.name))
    reports = [_report(tile, by_name, gps_sigma_m) for tile in finished]
    return Merged(finished, reports, decisions, unregistered, left_out)


def _evident(
    tiles: Sequence[TileModel],
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float,
    min_model_size: int,
) -> tuple[list[TileModel], dict[str, str]]:
    """The models without the images that joining left without evidence, and why those."""
    kept: list[TileModel] = []
    dropped: dict[str, str] = {}
    for tile in tiles:
        images = tile.model.num_reg_images()
        result = keep_evident([tile.model], min_model_size)
        dropped |= result.dropped
        for number, model in enumerate(result.models):
            name = f"{tile.name}-{number}" if number else tile.name
            part = TileModel(name, model, tile.origin, tile.georegistered)
            if model.num_reg_images() < images:
                _place(part, by_name, gps_sigma_m)
            kept.append(part)
    return kept, dropped


def _place(
    tile: TileModel, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float
) -> dict[str, Any]:
    """Carry a model, in place, into the ENU frame at the origin amid its images."""
    figures = place(tile.model, by_name, gps_sigma_m)
    latitude, longitude, altitude = figures["origin"]
    tile.origin = latitude, longitude, altitude
    tile.georegistered = bool(figures["georegistered"])
    return figures


def _names(tile: TileModel) -> set[str]:
    return {tile.model.image(number).name for number in tile.model.reg_image_ids()}


def _best_partner(
    base: TileModel, waiting: Sequence[TileModel], refused: set[str]
) -> TileModel | None:
    names = _names(base)
    common = [(len(names & _names(tile)), tile) for tile in waiting if tile.name not in refused]
    usable = [item for item in common if item[0] >= _MIN_COMMON_IMAGES]
    return max(usable, key=lambda item: item[0])[1] if usable else None


def _join(
    base: TileModel,
    other: TileModel,
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float,
) -> tuple[TileModel | None, dict[str, Any]]:
    decision: dict[str, Any] = {"a": base.name, "b": other.name, "merged": False}
    source, target = common_points(other.model, base.model)
    if len(source) < _MIN_COMMON_POINTS:
        reason = f"{len(source)} common points, {_MIN_COMMON_POINTS} are needed"
        return None, {**decision, "reason": reason}
    drawn = np.unique(np.linspace(0, len(source) - 1, _MAX_POINTS_DRAWN).astype(np.int64))
    source, target = source[drawn], target[drawn]
    options = pycolmap.RANSACOptions(random_seed=SEED, max_error=_tolerance(target))
    pycolmap.set_random_seed(SEED)
    found: Any = pycolmap.estimate_sim3d_robust(source, target, options)
    if found is None:
        return None, {**decision, "reason": "no similarity explains the common points"}
    inliers = np.asarray(found["inlier_mask"], np.bool_)
    scale, rotation, shift = best_similarity(source[inliers], target[inliers])
    carried = pycolmap.Reconstruction(other.model)
    carried.transform(pycolmap.Sim3d(scale, pycolmap.Rotation3d(rotation), shift))
    common, moved, turned, extent = _disagreement(base.model, carried)
    decision |= {
        "common_images": len(common),
        "residual_median_m": float(np.median(moved)),
        "residual_max_m": float(np.max(moved)),
        "turn_median_deg": float(np.median(turned)),
    }
    limit = _MAX_SHIFT_M if base.georegistered else _MAX_SHIFT_SHARE * extent
    torn = (moved > limit) | (turned > _MAX_TURN_DEG)
    if torn.sum() > _MAX_TORN * len(common):
        reason = (
            f"{torn.sum()} of {len(common)} common images differ: median "
            f"{np.median(moved):.2f} (limit {limit:.2f}) and {np.median(turned):.1f} degrees"
        )
        return None, {**decision, "reason": reason}
    kept = pycolmap.Reconstruction(base.model)
    far = (moved > _FAR * limit) | (turned > _FAR * _MAX_TURN_DEG)
    differing = {common[row]: bool(far[row]) for row in np.flatnonzero(torn)}
    dropped = _settle(differing, kept, carried)
    model = join_models(kept, carried)
    joined = TileModel(base.name, model, base.origin, base.georegistered)
    joined.dropped = base.dropped | other.dropped | dropped
    joined.parts = base.parts + other.parts
    _place(joined, by_name, gps_sigma_m)
    before, after = (_gps_residuals(each, by_name, gps_sigma_m) for each in (base, joined))
    own = sorted(set(before) - set(dropped))
    if own:
        decision |= {
            "gps_residual_horizontal_before_m": float(np.median([before[name] for name in own])),
            "gps_residual_horizontal_after_m": _number(
                float(np.median([after.get(name, np.inf) for name in own]))
            ),
        }
    # Drives that GPS shifts against each other may make residuals grow where they meet; what may
    # not be is photographs elsewhere than GPS and drives have them.
    apart = [_misplaced(each, by_name, gps_sigma_m) for each in (joined, base, other)]
    new = len(apart[0] - apart[1] - apart[2])
    if new > _MAX_NEW_MISPLACED * model.num_reg_images():
        reason = f"GPS and drives would contradict {new} of {model.num_reg_images()} images"
        return None, {**decision, "reason": reason}
    return joined, {**decision, "merged": True, "reason": "common images and GPS agree"}


def _settle(
    torn: Mapping[str, bool], base: pycolmap.Reconstruction, other: pycolmap.Reconstruction
) -> dict[str, str]:
    """Take each of the `torn` images, which two models have in different places, out of one.

    It stays where it sees more points. Of those far apart (`torn` says which) one place is wrong,
    not only bent: where neither model shows clearly more, the image is taken out of both and
    returned, with the reason.
    """
    points = [
        {image.name: image.num_points3D for image in model.images.values()}
        for model in (base, other)
    ]
    more = {name: _CLEARLY_MORE if far else 1.0 for name, far in torn.items()}
    ours = [name for name in torn if points[0][name] < more[name] * points[1][name]]
    theirs = [name for name in torn if points[1][name] <= more[name] * points[0][name]]
    remove_images(base, ours)
    remove_images(other, theirs)
    neither = sorted(set(ours) & set(theirs))
    return dict.fromkeys(neither, why.TORN)


def _held(tile: TileModel, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float) -> bool:
    """Adjust a joined model as a whole, and take out, in place, what GPS and drives contradict.

    False for a model that is contradicted as a whole.
    """
    if tile.parts > 1:
        adjusted = TileModel(
            tile.name, pycolmap.Reconstruction(tile.model), tile.origin, tile.georegistered
        )
        bundle_adjust(adjusted.model, refine_focal=False, refine_distortion=False)
        _place(adjusted, by_name, gps_sigma_m)
        # What adjusting makes worse stays as it was joined.
        before, after = (_misplaced(each, by_name, gps_sigma_m) for each in (tile, adjusted))
        if adjusted.georegistered >= tile.georegistered and len(after) <= len(before):
            tile.model, tile.origin = adjusted.model, adjusted.origin
            tile.georegistered = adjusted.georegistered
    if not tile.georegistered:
        return True
    whole = tile.model.num_reg_images()
    taken: dict[str, str] = {}
    for _ in range(_ROUNDS):
        wrong = misplaced_images(tile.model, by_name, tile.origin, gps_sigma_m)
        taken |= dict.fromkeys(wrong, why.BY_GPS)
        if not wrong or contradicted(len(taken), whole):
            break
        remove_images(tile.model, wrong)
        _place(tile, by_name, gps_sigma_m)
    if contradicted(len(taken), whole):
        reason = f"{why.MODEL_BY_GPS}: {len(taken)} of {whole} images lie elsewhere"
        tile.dropped |= dict.fromkeys(sorted(_names(tile) | set(taken)), reason)
        return False
    tile.dropped |= taken
    return True


def _misplaced(
    tile: TileModel, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float
) -> set[str]:
    if not tile.georegistered:
        return set()
    return set(misplaced_images(tile.model, by_name, tile.origin, gps_sigma_m))


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _gps_residuals(
    tile: TileModel, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float
) -> dict[str, float]:
    """Horizontal metres between where a georegistered model and where GPS has each image."""
    if not tile.georegistered:
        return {}
    names, centres, rotations = centres_and_rotations(tile.model)
    gps = positions_of([by_name[name] for name in names], tile.origin, gps_sigma_m)
    found = georegister(centres, rotations, gps)
    if found is None:
        return {}
    known = zip(names, found.horizontal.tolist(), strict=True)
    return {name: residual for name, residual in known if np.isfinite(residual)}


def _tolerance(points: Array) -> float:
    """A hundredth of the points' spread: scale-free, and half a metre for fifty."""
    spread = np.quantile(points, 0.75, axis=0) - np.quantile(points, 0.25, axis=0)
    return max(1e-6, 0.01 * float(np.linalg.norm(spread)))


@dataclass(frozen=True)
class _Seen:
    """Observations of a model: image names, and rows of (row of the name, keypoint, point)."""

    names: list[str]
    image: Indices
    keypoint: Indices
    point: Indices


def _seen(model: pycolmap.Reconstruction) -> _Seen:
    names, image, keypoint, point = [], [], [], []
    for row, number in enumerate(sorted(model.reg_image_ids())):
        each = model.image(number)
        indices = np.asarray(each.get_observation_point2D_idxs(), np.int64)
        names.append(each.name)
        image.append(np.full(len(indices), row))
        keypoint.append(indices)
        point.append(
            np.array([seen.point3D_id for seen in each.get_observation_points2D()], np.int64)
        )
    none = np.zeros(0, np.int64)
    return _Seen(names, *(np.concatenate([none, *part]) for part in (image, keypoint, point)))


def _meeting(source: _Seen, target: _Seen) -> tuple[Indices, Indices]:
    """Pairs of points, one of each, that share a keypoint, each pair once, sorted."""
    row_of = {name: row for row, name in enumerate(target.names)}
    place = np.array([row_of.get(name, -1) for name in source.names], np.int64)
    width = 1 + max(source.keypoint.max(initial=0), target.keypoint.max(initial=0))
    image = place[source.image]
    shared = np.flatnonzero(image >= 0)
    ours = image[shared] * width + source.keypoint[shared]
    _, at, other = np.intersect1d(ours, target.image * width + target.keypoint, return_indices=True)
    pairs = np.stack([source.point[shared][at], target.point[other]], axis=1)
    first, second = np.unique(pairs, axis=0).T if len(pairs) else (pairs[:, 0], pairs[:, 1])
    return first, second


def common_points(
    source: pycolmap.Reconstruction, target: pycolmap.Reconstruction
) -> tuple[Array, Array]:
    """(n, 3) places in both models of points that share a keypoint, a row a pair of points."""
    first, second = _meeting(_seen(source), _seen(target))
    return (
        np.array([source.point3D(number).xyz for number in first.tolist()]).reshape(-1, 3),
        np.array([target.point3D(number).xyz for number in second.tolist()]).reshape(-1, 3),
    )


def _disagreement(
    a: pycolmap.Reconstruction, b: pycolmap.Reconstruction
) -> tuple[list[str], Array, Array, float]:
    """Common images, their distances and turns (degrees), and how far apart they lie."""
    names_a, centres_a, rotations_a = centres_and_rotations(a)
    names_b, centres_b, rotations_b = centres_and_rotations(b)
    row_of_a = {name: row for row, name in enumerate(names_a)}
    row_of_b = {name: row for row, name in enumerate(names_b)}
    common = sorted(set(names_a) & set(names_b))
    rows_a = [row_of_a[name] for name in common]
    rows_b = [row_of_b[name] for name in common]
    distance = np.linalg.norm(centres_a[rows_a] - centres_b[rows_b], axis=1)
    relative = rotations_a[rows_a].transpose(0, 2, 1) @ rotations_b[rows_b]
    cosine = np.clip((np.trace(relative, axis1=1, axis2=2) - 1) / 2, -1, 1)
    extent = float(np.linalg.norm(np.ptp(centres_a[rows_a], axis=0)))
    return common, distance, np.degrees(np.arccos(cosine)), extent


def join_models(
    base: pycolmap.Reconstruction, other: pycolmap.Reconstruction
) -> pycolmap.Reconstruction:
    """One model of two that are in one frame; poses of common images are the base's.

    Each image is there once. Tracks that meet in a keypoint become one; an observation that two
    tracks claim stays with the base's.
    """
    joined = pycolmap.Reconstruction(base)
    number_of = _add_images(joined, other)
    for kept, added in _tracks_that_meet(base, other):
        free = [
            pycolmap.TrackElement(number_of[name], index)
            for name, index in (key for number in added for key in _keys(other, number))
            if not joined.image(number_of[name]).points2D[index].has_point3D()
        ]
        if kept:
            target = kept[0]
            for further in kept[1:]:
                target = joined.merge_points3D(target, further)
            for element in free:
                joined.add_observation(target, element)
        elif len(free) >= 2:
            point = other.point3D(added[0])
            track = pycolmap.Track()
            track.add_elements(free)
            joined.add_point3D(point.xyz, track, point.color)
    return joined


def _add_images(model: pycolmap.Reconstruction, other: pycolmap.Reconstruction) -> dict[str, int]:
    """Add the images, with poses and keypoints, that `model` lacks; all its numbers by name."""
    number_of = {image.name: number for number, image in model.images.items()}
    last = max(model.images, default=0)
    camera_of: dict[int, int] = {}
    for number in sorted(other.reg_image_ids()):
        image = other.image(number)
        if image.name in number_of:
            own = model.image(number_of[image.name])
            if not own.has_pose:
                # It was taken out of `model`: there it is still, without a place.
                frame = model.frame(own.frame_id)
                frame.rig_from_world = image.cam_from_world()
                model.register_frame(own.frame_id)
            continue
        if image.camera_id not in camera_of:
            camera_of[image.camera_id] = _camera(model, other.camera(image.camera_id))
        last += 1
        copy = pycolmap.Image(
            name=image.name,
            keypoints=np.array([point.xy for point in image.points2D]).reshape(-1, 2),
            camera_id=camera_of[image.camera_id],
            image_id=last,
        )
        model.add_image_with_trivial_frame(copy, image.cam_from_world())
        number_of[image.name] = last
    return number_of


def _tracks_that_meet(
    base: pycolmap.Reconstruction, other: pycolmap.Reconstruction
) -> list[tuple[list[int], list[int]]]:
    """Points of `base` and of `other` that are one point, keypoint by keypoint; none of base's
    alone. In the order of the first of `other`.
    """
    ours, theirs = sorted(base.points3D), sorted(other.points3D)
    added, known = _meeting(_seen(other), _seen(base))
    first = np.searchsorted(np.array(ours, np.int64), known)
    second = len(ours) + np.searchsorted(np.array(theirs, np.int64), added)
    labels = connected_components(len(ours) + len(theirs), first, second).tolist()
    groups: dict[int, tuple[list[int], list[int]]] = {}
    for number, label in zip(theirs, labels[len(ours) :], strict=True):
        groups.setdefault(label, ([], []))[1].append(number)
    for number, label in zip(ours, labels, strict=False):
        if label in groups:
            groups[label][0].append(number)
    return list(groups.values())


def _keys(model: pycolmap.Reconstruction, number: int) -> list[tuple[str, int]]:
    """The (image name, keypoint) that a point is seen at."""
    return [
        (model.image(element.image_id).name, element.point2D_idx)
        for element in model.point3D(number).track.elements
    ]


def _camera(model: pycolmap.Reconstruction, camera: pycolmap.Camera) -> int:
    """The id under which `model` has this camera, added if it is new to it."""
    for number, known in sorted(model.cameras.items()):
        same = (known.model, known.width, known.height) == (
            camera.model,
            camera.width,
            camera.height,
        )
        if same and np.array_equal(known.params, camera.params):
            return int(number)
    copy = pycolmap.Camera(camera.todict())
    copy.camera_id = max(model.cameras, default=0) + 1
    model.add_camera_with_trivial_rig(copy)
    return int(copy.camera_id)


def _once_each(tiles: list[TileModel]) -> list[TileModel]:
    """Models without those whose every image a larger one has: overlap that would not join."""
    kept: list[TileModel] = []
    for tile in sorted(tiles, key=lambda tile: (-tile.model.num_reg_images(), tile.name)):
        if not any(_names(tile) <= _names(other) for other in kept):
            kept.append(tile)
    return kept


def _report(
    tile: TileModel, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float
) -> dict[str, Any]:
    figures = place(pycolmap.Reconstruction(tile.model), by_name, gps_sigma_m)
    return {**figures, "name": tile.name, "origin": list(tile.origin)}


def poses_table(models: Sequence[TileModel], by_name: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """schemas.tables.POSES of all models, an image by the largest that has it, sorted by image_id.

    Positions are null where GPS could not place the model.
    """
    rows: dict[str, dict[str, Any]] = {}
    for number, tile in enumerate(models):
        model = tile.model
        model.update_point_3d_errors()
        for image_number in sorted(model.reg_image_ids()):
            image = model.image(image_number)
            row = by_name[image.name]
            if row["image_id"] in rows:
                continue
            pose = image.cam_from_world()
            place_on_earth: Sequence[float | None] = (None, None, None)
            if tile.georegistered:
                place_on_earth = enu_to_geodetic(
                    np.asarray(pose.tgt_origin_in_src())[None], tile.origin
                )[0].tolist()
            errors = [
                model.point3D(point.point3D_id).error
                for point in image.points2D
                if point.has_point3D()
            ]
            quaternion = wxyz(pose.rotation).tolist()
            rows[row["image_id"]] = {
                "image_id": row["image_id"],
                "name": image.name,
                "uri": row["uri"],
                "model": number,
                **dict(zip(("latitude", "longitude", "altitude"), place_on_earth, strict=True)),
                **dict(zip(("qw", "qx", "qy", "qz"), quaternion, strict=True)),
                "points": len(errors),
                "reprojection_error_px": float(np.mean(errors)) if errors else 0.0,
            }
    ordered = [rows[image] for image in sorted(rows)]
    latitude, longitude, altitude = (
        np.array([row[name] for row in ordered], np.float64)
        for name in ("latitude", "longitude", "altitude")
    )
    table = pa.Table.from_pylist(ordered, schema=tables.POSES)
    for name, column in (
        ("geometry", points_wkb(latitude, longitude, altitude)),
        ("bbox", boxes(latitude, longitude)),
    ):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), column)
    return with_geo_metadata(table)
