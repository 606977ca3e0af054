"""How the images of one tile are mapped: which mapper, and with which of the trusted pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vladmap.features.colmap import pycolmap
from vladmap.mapping.graph import connected_components
from vladmap.mapping.mapper import (
    MapperOptions,
    image_names,
    map_globally,
    map_incrementally,
)
from vladmap.mapping.placement import place
from vladmap.mapping.posed_mapper import FirstPose, map_from_poses
from vladmap.mapping.sound_models import SoundModels, TileImages, sound_models
from vladmap.mapping.soundness import PairMatches, collapsed, read_pairs

ENOUGH_SOUND = 0.8
"""The global mapper is tried where the sound incremental models hold less than this share of the
largest connected set of images."""
# Each round maps again without the pairs that the last one showed to be aliases.
_ALIAS_ROUNDS = 2
# The noise of GPS alone may make this share of a tile's pairs look like aliases.
_FEW_COLLAPSING = 0.01


def map_tile(
    work: Path,
    rows: list[dict[str, Any]],
    trusted: pa.Table,
    options: MapperOptions,
    poses: Mapping[str, FirstPose] | None = None,
) -> dict[str, Any]:
    """Map the COLMAP database `work`/database.db and write sound models to `work`/models/<n>.

    `rows` are the tile's rows of IMAGES, whose `uri` is the image's name in the database; `trusted`
    are its pairs, rows of mapping.judging.JUDGED. A tile with first poses, `poses` by image name,
    is mapped from them. One without, and one where they lead to sound models of too few images, is
    mapped incrementally; then globally; then both without the pairs that GPS puts far apart. The
    first attempt that holds enough images stands, or else the one with most. Returns the report of
    the tile.
    """
    by_name = {row["uri"]: row for row in rows}
    long_side = max(max(row["width"], row["height"]) for row in rows)
    tile = TileImages(by_name, long_side, options)
    run = _Run(work, tile, trusted, _TimeBudget(options.max_runtime_s))
    collapsing, sound, mapper = 0, SoundModels([], {}, []), "incremental"
    if poses:
        sound, mapper = run.from_poses(poses, pairs := read_pairs(run.database)), "poses"
    if not poses or not run.enough(sound):
        mapped, collapsing = run.without_aliases()
        pairs = read_pairs(run.database)
        attempt = sound_models(mapped, pairs, tile)
        if attempt.images() > sound.images() or not sound.models:
            sound, mapper = attempt, "incremental"
    if not run.enough(sound) and run.time.allows_another("the global mapper was not tried"):
        # Rotation averaging over all pairs does not break where one weak link breaks the
        # incremental map. Its tracks are fewer, and on streets it is often wrong as a whole, so it
        # is the last choice and has to pass the same tests.
        other = map_globally(run.database, work / "global", long_side, options)
        alternative = sound_models(other, pairs, tile)
        if alternative.images() > sound.images():
            sound, mapper = alternative, "global"
        elif not sound.models:
            sound.dropped = alternative.dropped | sound.dropped
    near = run.near_pairs_alone(sound)
    if near is not None:
        sound, mapper = near
    return {
        "mapper": mapper,
        "collapsing_pairs": collapsing,
        "out_of_time": run.time.missed,
        "far_pairs_left_out": 0 if near is None else _far_pairs(trusted).num_rows,
        **written_models(sound, work / "models"),
    }


def written_models(sound: SoundModels, folder: Path) -> dict[str, Any]:
    """Write models to `folder`/<n> and return what the report says of models and images."""
    reports = []
    for number, (model, report) in enumerate(sound.models):
        path = folder / str(number)
        path.mkdir(parents=True)
        model.write_binary(path)
        reports.append({"model": number, **report})
    registered = {name for model, _ in sound.models for name in image_names(model)}
    return {
        "models": reports,
        "models_left_out": sound.left_out,
        "registered": sorted(registered),
        "dropped": {
            name: reason for name, reason in sound.dropped.items() if name not in registered
        },
    }


class _TimeBudget:
    """Decides whether a further attempt would end within a tile's time limit, in seconds.

    `missed` lists the attempts that there was no time for.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._started = seconds, time.monotonic()
        self.missed: list[str] = []

    def allows_another(self, otherwise: str) -> bool:
        """Return whether an attempt half as long again as all so far fits; note it if not."""
        spent = time.monotonic() - self._started
        if 2.5 * spent <= self._seconds:
            return True
        over = spent >= self._seconds
        self.missed.append("the mapper was stopped before its end" if over else otherwise)
        return False


@dataclass(frozen=True)
class _Run:
    """The attempts at one tile: its folder with `database.db`, its images, its trusted pairs."""

    work: Path
    tile: TileImages
    trusted: pa.Table
    time: _TimeBudget

    @property
    def database(self) -> Path:
        return self.work / "database.db"

    def enough(self, sound: SoundModels) -> bool:
        """Return whether models hold most of what verified pairs connect."""
        return sound.images() >= ENOUGH_SOUND * largest_component(self.database)

    def from_poses(self, poses: Mapping[str, FirstPose], pairs: PairMatches) -> SoundModels:
        """Map from first poses, by image name."""
        mapped = map_from_poses(self.database, poses, self.tile.long_side_px, self.tile.options)
        return sound_models(mapped, pairs, self.tile)

    def without_aliases(self) -> tuple[list[pycolmap.Reconstruction], int]:
        """Map incrementally, remove the pairs that the map collapses against GPS, and map again.

        Such a pair is an alias: two places that look the same, which the map puts together and GPS
        far apart. The pairs are deleted from the database; returns models and how many pairs.
        """
        tile, trusted, deleted = self.tile, self.trusted, 0
        name_of = self._name_of()
        for attempt in range(_ALIAS_ROUNDS + 1):
            folder = self.work / f"incremental{attempt}"
            models = map_incrementally(self.database, folder, tile.long_side_px, tile.options)
            if not models or attempt == _ALIAS_ROUNDS:
                break
            largest = pycolmap.Reconstruction(models[0])
            placed = place(largest, tile.by_name, tile.options.gps_sigma_m)
            if not placed["georegistered"]:
                break
            aliases = collapsed(largest, trusted, name_of)
            if len(aliases) <= _FEW_COLLAPSING * trusted.num_rows:
                break
            skipped = f"{len(aliases)} pairs that GPS contradicts stayed in"
            if not self.time.allows_another(skipped):
                break
            self._delete(aliases)
            trusted = _without(trusted, aliases, name_of)
            deleted += len(aliases)
        return models, deleted

    def near_pairs_alone(self, sound: SoundModels) -> tuple[SoundModels, str] | None:
        """Return sound models of the near pairs alone and their mapper's name, if they hold more.

        Where a street repeats itself, its far pairs confirm each other: with eighteen of them no
        map of 29 photographs of one street held, without them all 29 are in one model. The far
        pairs are deleted from the database.
        """
        far = _far_pairs(self.trusted)
        if self.enough(sound) or far.num_rows == 0:
            return None
        if not self.time.allows_another("near pairs alone were not tried"):
            return None
        name_of = self._name_of()
        ends = ([name_of[image] for image in far[f"image_id_{end}"].to_pylist()] for end in "ab")
        self._delete(list(zip(*ends, strict=True)))
        pairs, best = read_pairs(self.database), None
        for name, mapper in (("incremental", map_incrementally), ("global", map_globally)):
            folder = self.work / f"near-{name}"
            mapped = mapper(self.database, folder, self.tile.long_side_px, self.tile.options)
            attempt = sound_models(mapped, pairs, self.tile)
            if attempt.images() > (sound if best is None else best[0]).images():
                best = attempt, name
        return best

    def _name_of(self) -> dict[str, str]:
        return {row["image_id"]: name for name, row in self.tile.by_name.items()}

    def _delete(self, pairs: list[tuple[str, str]]) -> None:
        """Delete the two-view geometries of pairs of image names from the database."""
        with pycolmap.Database.open(self.database) as opened:
            numbers = {image.name: image.image_id for image in opened.read_all_images()}
            for a, b in pairs:
                opened.delete_two_view_geometry(numbers[a], numbers[b])


def _far_pairs(trusted: pa.Table) -> pa.Table:
    """Return the trusted pairs that lie further apart than the error of GPS explains.

    Other photographs confirm them, which on a street that repeats itself may be wrong as well.
    """
    return trusted.filter(
        pc.fill_null(pc.greater(trusted["distance_m"], trusted["limit_m"]), False)
    )


def _without(
    pairs: pa.Table, unwanted: list[tuple[str, str]], name_of: Mapping[str, str]
) -> pa.Table:
    gone = set(unwanted)
    ends = zip(*(pairs[f"image_id_{end}"].to_pylist() for end in "ab"), strict=True)
    return pairs.filter(
        pa.array([(name_of[a], name_of[b]) not in gone for a, b in ends], pa.bool_())
    )


def largest_component(database: Path) -> int:
    """Return how many images the largest set connected by verified pairs holds."""
    with pycolmap.Database.open(database) as opened:
        pair_ids, counts = opened.read_two_view_geometry_num_inliers()
        total = opened.num_images()
    pairs = np.array([pycolmap.pair_id_to_image_pair(pair_id) for pair_id in pair_ids], np.int64)
    if len(pairs) == 0:
        return 0
    pairs = pairs[np.asarray(counts) > 0]
    return int(np.bincount(connected_components(total + 1, pairs[:, 0], pairs[:, 1])).max())
