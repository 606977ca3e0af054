"""COLMAP's database and its mappers, on a street whose every pose is known."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from tests.mapping.scene import CAMERA, features_of, id_of, views_of
from tests.mapping.test_tile_merge import WIDTH, model_of, name_of, street
from vladmap.features.colmap import pycolmap
from vladmap.mapping.camera import Camera
from vladmap.mapping.check import best_similarity
from vladmap.mapping.georegister import centres_and_rotations
from vladmap.mapping.mapper import (
    MapperOptions,
    bundle_adjust,
    largest_first,
    map_globally,
    map_incrementally,
    model_score,
    observation_errors,
    write_database,
)

NUMBERS = range(8)
OTHER = Camera("OPENCV", 640, 480, (510.0, 511.0, 320.0, 240.0, 0.1, 0.01, 0.0, 0.0), False)


def written(path: Path, reverse: bool = False) -> dict[str, int]:
    """A database of eight photographs, the last two by another camera; inputs in either order."""
    ids = [id_of(number) for number in NUMBERS]
    views = views_of(NUMBERS)
    if reverse:
        ids, views = ids[::-1], views[::-1]
    names = {image_id: f"{image_id[2:]}.jpg" for image_id in ids}
    camera_of = {image_id: "b" if image_id >= id_of(6) else "a" for image_id in ids}
    cameras = {"b": OTHER, "a": CAMERA, "unused": CAMERA}
    return write_database(path, names, cameras, camera_of, features_of(NUMBERS), views)


def test_a_database_holds_cameras_images_keypoints_and_geometries_as_given(tmp_path: Path) -> None:
    numbers = written(tmp_path / "database.db")
    features, views = features_of(NUMBERS), views_of(NUMBERS)
    assert numbers == {id_of(number): number + 1 for number in NUMBERS}
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
        assert {number: Camera.from_colmap(each) for number, each in cameras.items()} == {
            1: CAMERA, 2: OTHER,
        }  # fmt: skip
        for image in database.read_all_images():
            assert image.name == name_of(image.image_id - 1)
            assert image.camera_id == (1 if image.image_id <= 6 else 2)
            keypoints = database.read_keypoints(image.image_id)
            expected = features[id_of(image.image_id - 1)].keypoints
            np.testing.assert_array_equal(np.asarray(keypoints)[:, :2], expected[:, :2])
        for view in views:
            a, b = numbers[view.image_id_a], numbers[view.image_id_b]
            np.testing.assert_array_equal(database.read_matches(a, b), view.matches)
            geometry = database.read_two_view_geometry(a, b)
            np.testing.assert_array_equal(geometry.inlier_matches, view.inliers)
            np.testing.assert_allclose(geometry.E, view.essential)
            kind = pycolmap.TwoViewGeometryConfiguration(geometry.config)
            assert kind.name == view.configuration


def test_a_database_is_plain_sqlite_without_descriptors(tmp_path: Path) -> None:
    written(tmp_path / "database.db")
    with sqlite3.connect(tmp_path / "database.db") as database:
        count = {
            table: database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            for table in ("cameras", "images", "keypoints", "descriptors", "two_view_geometries")
        }
        rows = dict(database.execute("SELECT image_id, rows FROM keypoints"))
        names = [name for (name,) in database.execute("SELECT name FROM images ORDER BY image_id")]
    views = len(views_of(NUMBERS))
    assert count == {
        "cameras": 2, "images": 8, "keypoints": 8, "descriptors": 0, "two_view_geometries": views,
    }  # fmt: skip
    assert names == [name_of(number) for number in NUMBERS]
    assert rows == {number + 1: len(features_of([number])[id_of(number)]) for number in NUMBERS}


def test_a_database_does_not_depend_on_the_order_of_what_it_is_made_of(tmp_path: Path) -> None:
    written(tmp_path / "one.db")
    written(tmp_path / "other.db", reverse=True)
    dumps = []
    for name in ("one.db", "other.db"):
        with sqlite3.connect(tmp_path / name) as database:
            dumps.append(list(database.iterdump()))
    assert dumps[0] == dumps[1]


@pytest.mark.parametrize("mapper", [map_incrementally, map_globally])
def test_either_mapper_finds_the_known_places_and_the_same_ones_again(
    tmp_path: Path, mapper: object
) -> None:
    names = {id_of(number): name_of(number) for number in NUMBERS}
    path = tmp_path / "database.db"
    camera_of = dict.fromkeys(names, "a")
    write_database(path, names, {"a": CAMERA}, camera_of, features_of(NUMBERS), views_of(NUMBERS))
    runs = []
    for folder in ("one", "two"):
        (model,) = mapper(path, tmp_path / folder, WIDTH, MapperOptions())  # type: ignore[operator]
        registered, centres, _ = centres_and_rotations(model)
        assert registered == [name_of(number) for number in NUMBERS]
        runs.append(centres)
        # COLMAP's intrinsics stay as they were given.
        assert Camera.from_colmap(model.camera(1)) == CAMERA
    np.testing.assert_array_equal(runs[0], runs[1])
    truth = street()[0][: len(NUMBERS)]
    scale, rotation, shift = best_similarity(runs[0], truth)
    off = np.linalg.norm(scale * runs[0] @ rotation.T + shift - truth, axis=1)
    # Photographs are 4 m apart; half a pixel at 500 of focal length and 20 m of distance is 2 cm.
    assert off.max() < 0.2


def test_photographs_that_share_nothing_with_the_others_are_in_no_model(tmp_path: Path) -> None:
    numbers = [*range(6), 20]
    names = {id_of(number): name_of(number) for number in numbers}
    path = tmp_path / "database.db"
    camera_of = dict.fromkeys(names, "a")
    write_database(path, names, {"a": CAMERA}, camera_of, features_of(numbers), views_of(range(6)))
    (model,) = map_globally(path, tmp_path / "global", WIDTH, MapperOptions())
    assert sorted(centres_and_rotations(model)[0]) == [name_of(number) for number in range(6)]
    assert map_globally(path, tmp_path / "none", WIDTH, MapperOptions(min_model_size=7)) == []


def test_models_come_largest_first_and_small_ones_not_at_all() -> None:
    models = [model_of(range(4)), model_of([9, 10]), model_of(range(8, 14)), model_of(range(2, 6))]
    ordered = largest_first(models, 3)
    assert [sorted(centres_and_rotations(model)[0])[0] for model in ordered] == [
        name_of(8), name_of(0), name_of(2),
    ]  # fmt: skip


def test_bundle_adjustment_brings_a_disturbed_model_back() -> None:
    model = model_of(range(8))
    assert observation_errors(model).max() < 1e-6
    best = model_score(model, WIDTH)
    rng = np.random.default_rng(0)
    for number in model.points3D:
        model.point3D(number).xyz += rng.normal(0, 0.05, 3)
    disturbed = model_score(model, WIDTH)
    assert disturbed < 0.98 * best
    bundle_adjust(model, refine_focal=False, refine_distortion=False)
    assert model_score(model, WIDTH) == pytest.approx(best, rel=1e-3)
