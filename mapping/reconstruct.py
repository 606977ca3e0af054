"""One tile: features and two-view geometries in, georegistered COLMAP models out."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from vladmap.features.base import LocalFeatures
from vladmap.mapping import reasons as why
from vladmap.mapping.camera import Camera
from vladmap.mapping.camera_keys import camera_keys
from vladmap.mapping.child import ChildFailed, call
from vladmap.mapping.judging import judge_tables, trusted_only, verdict_counts
from vladmap.mapping.mapper import (
    MapperOptions,
    write_database,
)
from vladmap.mapping.posed_mapper import FirstPose
from vladmap.mapping.pure_rotation import turning_views
from vladmap.mapping.tile_continuing import Before, continue_tile
from vladmap.mapping.tile_mapping import map_tile
from vladmap.mapping.tile_poses import first_poses
from vladmap.mapping.tiles import FROM_POSES
from vladmap.mapping.two_view import TwoView, two_views_of

TIME_LIMIT_S = 3600.0


@dataclass(frozen=True)
class TileResult:
    """The outcome of a tile: `report` is tile.json, `failure` the reason if there is no model.

    `out_of_memory`: the tile failed for want of memory, and may not where there is more.
    """

    name: str
    report: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    out_of_memory: bool = False

    def record(self, images: int) -> dict[str, Any]:
        """Return tile.json of a tile of so many images, those without features included."""
        return {**self.report, "tile": self.name, "images": images, "failure": self.failure}


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
    before: Before | None = None,
) -> TileResult:
    """Map the images of one tile and write `output`/sparse/<n>/*.bin and `output`/tile.json.

    Args:
        name: the tile's name, for the report.
        output: a folder on local disk.
        images: the tile's rows of IMAGES; `uri` is the image's name in COLMAP's models.
        read_features: returns the local features of an image_id.
        two_views: rows of TWO_VIEWS; those of other images are left out.
        cameras: the camera of each key of `mapping.camera_keys`.
        options: how the images are mapped.
        time_limit_s: after so many seconds the child process is killed.
        judged: verdicts on the pairs, judged over the whole collection, rows of
            mapping.judging.JUDGED. Without them the tile's pairs are judged by themselves.
        before: what the tile was when it had other images or pairs. Its model is continued if that
            passes every test; else the tile is mapped from nothing, and `grown` of the report says
            why.

    COLMAP runs in a child process on a database on local disk. If it crashes or hangs, the returned
    result says so in `failure`; nothing is raised. Every model is kept, largest first, that has at
    least `options.min_model_size` images with evidence (see `mapping.evidence`) and that GPS,
    sequences and its own pairs do not contradict (see `mapping.soundness`). A model that GPS can
    place is in metres, in the east-north-up frame of its own origin; another one stays in a frame
    of its own and is marked so. `unregistered` of the report gives the reason for each image that
    is in no model. The same inputs give the same bytes.
    """
    options = options or MapperOptions(max_runtime_s=int(time_limit_s * 0.8))
    if judged is None:
        judged = judge_tables(images, two_views, options.gps_sigma_m)
    tile = _tile_of(name, images, read_features, two_views, cameras, trusted_only(judged))
    if len(tile.linked) < options.min_model_size:
        failure = f"only {len(tile.linked)} images have trusted pairs"
        return tile.failed(dict.fromkeys(tile.linked, failure), failure)
    turned = _only_turned(tile)
    if len(turned) == len(tile.linked):
        failure = f"{why.ONLY_TURNS}: {len(tile.views)} pairs of {len(tile.linked)} images"
        return tile.failed(turned, failure)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vladmap-tile-") as folder:
        try:
            report = _mapped(Path(folder), tile, options, time_limit_s, before)
        except ChildFailed as error:
            failure = f"mapping failed: {error}"
            failed = tile.failed(dict.fromkeys(tile.linked, failure), failure)
            return replace(failed, out_of_memory=error.out_of_memory)
        dropped = {tile.ids[uri]: reason for uri, reason in report.pop("dropped").items()}
        registered = {tile.ids[uri] for uri in report.pop("registered")}
        reasons = dict.fromkeys(tile.linked - registered, why.NOT_PLACED) | dropped | turned
        if not report["models"]:
            return tile.failed(reasons, _why_none(report["models_left_out"], dropped))
        shutil.rmtree(output / "sparse", ignore_errors=True)
        shutil.copytree(Path(folder) / "models", output / "sparse")
    report |= {"tile": name, "images": len(tile.rows), "linked_images": len(tile.linked)}
    report["unregistered"] = tile.unregistered(registered, reasons)
    report["pairs"] = verdict_counts(judged)
    (output / "tile.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    return TileResult(name, report)


@dataclass(frozen=True)
class _Tile:
    """What one tile is mapped from.

    `images` are its rows of IMAGES with their drives, `rows` the same, sorted by image_id;
    `trusted` are its trusted pairs (rows of JUDGED) and `views` their geometries; `linked` are the
    image_ids that have trusted pairs. `keys` gives each image_id the key of its camera in
    `cameras`.
    """

    name: str
    images: pa.Table
    rows: list[dict[str, Any]]
    trusted: pa.Table
    views: list[TwoView]
    linked: set[str]
    read_features: Callable[[str], LocalFeatures]
    keys: dict[str, str]
    cameras: Mapping[str, Camera]

    @cached_property
    def features(self) -> dict[str, LocalFeatures]:
        """The local features of the linked images."""
        return {image_id: self.read_features(image_id) for image_id in sorted(self.linked)}

    @property
    def ids(self) -> dict[str, str]:
        """The image_id of each image's name in COLMAP's models."""
        return {row["uri"]: row["image_id"] for row in self.rows}

    def first_poses(self, gps_sigma_m: float) -> dict[str, FirstPose]:
        """First poses by image_id, of the images that pairs hold."""
        cameras = {image_id: self.cameras[self.keys[image_id]] for image_id in self.linked}
        return first_poses(self.images, self.views, self.features, cameras, gps_sigma_m)

    def unregistered(self, registered: set[str], reasons: Mapping[str, str]) -> dict[str, str]:
        """Return the reason for each image of the tile that is in none of its models."""
        missing = (row["image_id"] for row in self.rows if row["image_id"] not in registered)
        return {image_id: reasons.get(image_id, why.NO_PAIR) for image_id in missing}

    def failed(self, reasons: Mapping[str, str], failure: str) -> TileResult:
        """Return the result of a tile without a model."""
        return TileResult(self.name, {"unregistered": self.unregistered(set(), reasons)}, failure)


def _tile_of(
    name: str,
    images: pa.Table,
    read_features: Callable[[str], LocalFeatures],
    two_views: pa.Table,
    cameras: Mapping[str, Camera],
    trusted: pa.Table,
) -> _Tile:
    if "sequence_id" not in images.column_names:
        nothing = pa.nulls(images.num_rows)
        images = images.append_column("sequence_id", nothing.cast(pa.string()))
        images = images.append_column("sequence_index", nothing.cast(pa.int64()))
    rows = images.sort_by("image_id").to_pylist()
    views = _trusted_views(two_views, trusted, {row["image_id"] for row in rows})
    linked = _images_of(views)
    keys = dict(zip(images["image_id"].to_pylist(), camera_keys(images), strict=True))
    return _Tile(name, images, rows, trusted, views, linked, read_features, keys, cameras)


def _only_turned(tile: _Tile) -> dict[str, str]:
    """Return the linked images that only have pairs of pure rotation, with that as the reason.

    Such an image cannot be placed, whatever the mapper says.
    """
    camera_of = {image_id: tile.cameras[tile.keys[image_id]] for image_id in tile.linked}
    turning = turning_views(tile.views, tile.features, camera_of)
    moving = _images_of(view for view, turns in zip(tile.views, turning, strict=True) if not turns)
    return dict.fromkeys(tile.linked - moving, why.ONLY_TURNS)


def _mapped(
    work: Path, tile: _Tile, options: MapperOptions, time_limit_s: float, before: Before | None
) -> dict[str, Any]:
    """Map a tile in a child process, write its models to `work`/models; return the report.

    Raises ChildFailed where the child crashes or does not end in time.
    """
    names = {row["image_id"]: row["uri"] for row in tile.rows if row["image_id"] in tile.linked}
    database = work / "database.db"
    write_database(database, names, tile.cameras, tile.keys, tile.features, tile.views)
    grown: dict[str, Any] = {}
    if before is not None:
        continued = _continued(work, tile, before, options, time_limit_s)
        if "models" in continued:
            return continued
        grown = {"grown": continued}
    poses = tile.first_poses(options.gps_sigma_m) if len(tile.linked) >= FROM_POSES else {}
    by_name = {names[image_id]: pose for image_id, pose in poses.items()}
    report: dict[str, Any] = call(
        map_tile, work, tile.rows, tile.trusted, options, by_name, time_limit_s=time_limit_s
    )
    return report | grown


def _continued(
    work: Path, tile: _Tile, before: Before, options: MapperOptions, time_limit_s: float
) -> dict[str, Any]:
    """Continue the model of before in a child process, as `continue_tile` does.

    A child that crashes or does not end in time is a refusal like any other.
    """
    try:
        result: dict[str, Any] = call(
            continue_tile, work, tile.rows, before, options, time_limit_s=time_limit_s
        )
    except ChildFailed as error:
        return {"from_nothing": f"its model could not be continued: {error}"}
    return result


def _trusted_views(two_views: pa.Table, trusted: pa.Table, members: set[str]) -> list[TwoView]:
    """Return the verified pairs of `members` that are among the `trusted` rows of JUDGED."""
    believed = set(zip(*(trusted[f"image_id_{end}"].to_pylist() for end in "ab"), strict=True))
    return [
        view
        for view in two_views_of(two_views)
        if view.verified
        and (view.image_id_a, view.image_id_b) in believed
        and view.image_id_a in members
        and view.image_id_b in members
    ]


def _images_of(views: Iterable[TwoView]) -> set[str]:
    return {image_id for view in views for image_id in (view.image_id_a, view.image_id_b)}


def _why_none(left_out: list[dict[str, Any]], dropped: Mapping[str, str]) -> str:
    """Return one line on why a tile has no model: the most frequent reason of removed images."""
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
