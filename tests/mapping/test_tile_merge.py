"""Merging of tiles, on a street whose every pose and point is known."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from vladmap.features.colmap import pycolmap
from vladmap.geodesy.wgs84 import enu_to_geodetic, geodetic_to_enu, great_circle_m
from vladmap.mapping.georegister import Similarity, centres_and_rotations
from vladmap.mapping.image_poses import candidates_of, settle
from vladmap.mapping.placement import place
from vladmap.mapping.poses import poses_table
from vladmap.mapping.quality import qualities
from vladmap.mapping.tile_arrays import TileArrays, common_points, tile_arrays
from vladmap.mapping.tile_merge import merge_tiles
from vladmap.mapping.tile_model import TileModel
from vladmap.mapping.track_join import build_model, join_tracks
from vladmap.schemas import tables

ORIGIN = (48.0, 16.0, 100.0)
IMAGES, WIDTH, HEIGHT, FOCAL = 24, 640, 480, 500.0


@cache
def street() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres (n, 3), world_from_camera (n, 3, 3) along an arc, and points on its houses (m, 3)."""
    heading = np.linspace(0, np.pi / 2, IMAGES)
    centres = np.stack([60 * np.sin(heading), 60 * (1 - np.cos(heading)), 0 * heading + 2], axis=1)
    forward = np.stack([np.cos(heading), np.sin(heading), 0 * heading], axis=1)
    down = np.tile([0.0, 0.0, -1.0], (IMAGES, 1))
    rotations = np.stack([np.cross(down, forward), down, forward], axis=2)
    rng = np.random.default_rng(5)
    angle, radius = rng.uniform(0, 2, 1500), rng.choice([52.0, 68.0], 1500)
    points = np.stack(
        [radius * np.sin(angle), 60 - radius * np.cos(angle), rng.uniform(0, 8, 1500)], axis=1
    )
    return centres, rotations, points


def name_of(number: int) -> str:
    return f"{number:03d}.jpg"


def model_of(numbers: Sequence[int], focal: float = FOCAL) -> pycolmap.Reconstruction:
    """The exact model of some of the street's images: a keypoint for each point in view.

    Keypoints are those of the whole street whatever the choice of images, as features are.
    """
    centres, rotations, points = street()
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        model="PINHOLE", width=WIDTH, height=HEIGHT, params=[focal, focal, WIDTH / 2, HEIGHT / 2]
    )
    camera.camera_id = 1
    model.add_camera_with_trivial_rig(camera)
    tracks: dict[int, list[tuple[int, int]]] = {}
    for image_id, number in enumerate(numbers, start=1):
        seen = (points - centres[number]) @ rotations[number]
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = focal * seen[:, :2] / seen[:, 2:] + [WIDTH / 2, HEIGHT / 2]
        inside = (pixels >= 0).all(axis=1) & (pixels < [WIDTH, HEIGHT]).all(axis=1)
        visible = np.flatnonzero((seen[:, 2] > 2) & (seen[:, 2] < 60) & inside)
        pose = pycolmap.Rigid3d(
            pycolmap.Rotation3d(rotations[number].T), -rotations[number].T @ centres[number]
        )
        image = pycolmap.Image(
            name=name_of(number), keypoints=pixels[visible], camera_id=1, image_id=image_id
        )
        model.add_image_with_trivial_frame(image, pose)
        for index, point in enumerate(visible):
            tracks.setdefault(int(point), []).append((image_id, index))
    for point, elements in sorted(tracks.items()):
        if len(elements) >= 2:
            track = pycolmap.Track()
            track.add_elements([pycolmap.TrackElement(*element) for element in elements])
            model.add_point3D(points[point], track, np.zeros(3, np.uint8))
    return model


def tile(
    name: str, numbers: Sequence[int], georegistered: bool = True, **options: Any
) -> TileModel:
    return TileModel(name, model_of(numbers, **options), ORIGIN, georegistered)


def rows(sigma: float = 0.5) -> dict[str, dict[str, Any]]:
    noise = np.random.default_rng(2).normal(0, sigma, (IMAGES, 3))
    geodetic = enu_to_geodetic(street()[0] + noise, ORIGIN).tolist()
    return {
        name_of(number): {
            "image_id": f"id{number:03d}", "uri": name_of(number), "gps_accuracy_m": 1.0,
            "latitude": latitude, "longitude": longitude, "altitude": altitude,
        }
        for number, (latitude, longitude, altitude) in enumerate(geodetic)
    }  # fmt: skip


def without_gps() -> dict[str, dict[str, Any]]:
    return {
        name: {**row, "latitude": None, "longitude": None, "altitude": None}
        for name, row in rows().items()
    }


def disguise(model: pycolmap.Reconstruction) -> pycolmap.Sim3d:
    """Carry a model into a frame of its own; returns the similarity that did it."""
    turn = pycolmap.Rotation3d(
        np.array([0.1, -0.3, 0.2, 0.9]) / np.linalg.norm([0.1, 0.3, 0.2, 0.9])
    )
    similarity = pycolmap.Sim3d(0.37, turn, np.array([4.0, -7.0, 1.0]))
    model.transform(similarity)
    return similarity


def shape_error(model: pycolmap.Reconstruction) -> float:
    """How far centres are from the street's after the best alignment, in metres at most."""
    names, centres, _ = centres_and_rotations(model)
    truth = street()[0][[int(name[:3]) for name in names]]
    similarity = pycolmap.estimate_sim3d(centres, truth)
    assert similarity is not None
    return float(np.linalg.norm(similarity * centres - truth, axis=1).max())


def table_of(models: Sequence[TileModel], by_name: dict[str, dict[str, Any]]) -> pa.Table:
    return poses_table(models, by_name, [qualities(model, by_name) for model in models])


def keys(model: pycolmap.Reconstruction, number: int) -> list[tuple[str, int]]:
    return [
        (model.image(element.image_id).name, element.point2D_idx)
        for element in model.point3D(number).track.elements
    ]


def arrays_of(model: pycolmap.Reconstruction) -> TileArrays:
    return tile_arrays(model, {name_of(number): number for number in range(IMAGES)})


def join_models(*models: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """One model of several that are in one frame."""
    tiles = [arrays_of(model) for model in models]
    same = [Similarity(1.0, np.eye(3), np.zeros(3))] * len(tiles)
    poses = settle(candidates_of(tiles, same), 1.0)
    tracks = join_tracks(tiles, same, poses.accepted)
    return build_model(models, poses, [name_of(number) for number in range(IMAGES)], tracks)[0]


def test_points_that_share_a_keypoint_are_one_place_in_both_frames() -> None:
    a, b = model_of(range(14)), model_of(range(10, 24))
    similarity = disguise(b)
    source, target = common_points(arrays_of(b), arrays_of(a))
    assert len(source) > 50
    np.testing.assert_allclose(similarity * target, source, atol=1e-9)


def test_models_of_different_images_have_no_common_points() -> None:
    source, target = common_points(
        arrays_of(model_of(range(8))), arrays_of(model_of(range(12, 20)))
    )
    assert source.shape == target.shape == (0, 3)


def test_two_halves_joined_are_the_whole_with_the_same_tracks() -> None:
    joined = join_models(model_of(range(14)), model_of(range(10, 24)))
    whole = model_of(range(24))

    def tracks(model: pycolmap.Reconstruction) -> set[frozenset[tuple[str, int]]]:
        return {
            frozenset(
                (model.image(element.image_id).name, element.point2D_idx)
                for element in point.track.elements
            )
            for point in model.points3D.values()
        }

    # A point that neither half saw twice is in neither, and so not in the joined one.
    halves = [frozenset(map(name_of, part)) for part in (range(14), range(10, 24))]
    expected = set()
    for track in tracks(whole):
        seen = [frozenset(key for key in track if key[0] in half) for half in halves]
        parts = [part for part in seen if len(part) >= 2]
        if parts:
            expected.add(frozenset().union(*parts))
    assert tracks(joined) == expected
    assert joined.num_reg_images() == 24
    assert joined.num_cameras() == 1
    assert joined.is_valid()


def test_one_track_of_a_model_bridges_two_of_the_other() -> None:
    # The base holds a point split in two; the other model knows that it is one.
    base, other = model_of(range(6)), model_of(range(6))
    number, point = next(
        (number, point)
        for number, point in sorted(base.points3D.items())
        if point.track.length() >= 4
    )
    elements = [(each.image_id, each.point2D_idx) for each in point.track.elements]
    place, before = point.xyz.copy(), base.num_points3D()
    base.delete_point3D(number)
    for half in (elements[:2], elements[2:]):
        track = pycolmap.Track()
        track.add_elements([pycolmap.TrackElement(*element) for element in half])
        base.add_point3D(place, track, np.zeros(3, np.uint8))
    assert base.num_points3D() == before + 1
    joined = join_models(base, other)
    assert joined.num_points3D() == before
    assert joined.is_valid()


def test_cameras_that_differ_are_both_kept() -> None:
    right = model_of(range(10, 24))
    right.camera(1).focal_length_x = right.camera(1).focal_length_y = 510.0
    joined = join_models(model_of(range(14)), right)
    assert sorted(camera.params[0] for camera in joined.cameras.values()) == [500.0, 510.0]
    own = {image.name: image.camera.params[0] for image in joined.images.values()}
    assert (own[name_of(0)], own[name_of(23)]) == (500.0, 510.0)
    assert joined.is_valid()


def test_overlapping_tiles_become_one_model_in_its_place() -> None:
    right = tile("right", range(10, 24))
    disguise(right.model)
    merged = merge_tiles([tile("left", range(14)), right], rows())
    assert [each["merged"] for each in merged.decisions] == [True]
    [model] = merged.models
    assert model.georegistered
    assert model.model.num_reg_images() == 24
    assert shape_error(model.model) < 0.01
    names, centres, _ = centres_and_rotations(model.model)
    there = geodetic_to_enu(enu_to_geodetic(centres, model.origin), ORIGIN)
    error = np.linalg.norm(there - street()[0][[int(name[:3]) for name in names]], axis=1)
    assert np.median(error) < 1.0, "half a metre of noise in GPS, averaged over 24 images"
    assert merged.reports[0]["images"] == 24
    [decision] = merged.decisions
    assert decision["residual_max_m"] >= decision["residual_median_m"] > 0, "issue 19, 13: filled"
    for when in ("before", "after"):
        assert 0 < decision[f"gps_residual_horizontal_{when}_m"] < 2


@pytest.mark.parametrize("joined", [False, True])
def test_a_model_far_from_its_tile_stands_upright_about_an_origin_of_its_own(joined: bool) -> None:
    """Issue 19, 5: eight degrees of latitude away, up leaned by as many degrees."""
    ours, far = rows(sigma=0.0), (ORIGIN[0] + 8.0, ORIGIN[1], ORIGIN[2])
    for number, at in enumerate(enu_to_geodetic(street()[0], far).tolist()):
        ours[name_of(number)] |= dict(zip(("latitude", "longitude", "altitude"), at, strict=True))
    parts = [range(14), range(10, 24)] if joined else [range(24)]
    tiles = [tile(f"part{number}", part, False) for number, part in enumerate(parts)]
    for part in tiles:
        disguise(part.model)
        figures = place(part.model, ours, 1.0)
        latitude, longitude, altitude = figures["origin"]
        part.origin, part.georegistered = (latitude, longitude, altitude), True
    merged = merge_tiles(tiles, ours)
    [model], [report] = merged.models, merged.reports
    assert great_circle_m(*model.origin[:2], *far[:2]) < 100
    assert report["origin"] == list(model.origin)
    names, _, rotations = centres_and_rotations(model.model)
    down_here = rotations[:, :, 1]
    np.testing.assert_allclose(down_here, np.tile([0.0, 0.0, -1.0], (len(names), 1)), atol=2e-3)
    table = table_of(merged.models, ours)
    positions = np.array([table[name].to_numpy() for name in ("latitude", "longitude")]).T
    np.testing.assert_allclose(positions, enu_to_geodetic(street()[0], far)[:, :2], atol=2e-6)


def test_a_chain_of_three_tiles_becomes_one_whatever_their_order() -> None:
    parts = [tile("a", range(10)), tile("b", range(7, 17)), tile("c", range(14, 24))]
    for tiles in (parts, parts[::-1]):
        merged = merge_tiles(tiles, rows())
        assert [each.model.num_reg_images() for each in merged.models] == [24]
        assert sum(each["merged"] for each in merged.decisions) == 2


def test_tiles_without_gps_join_in_a_frame_of_their_own() -> None:
    parts = [tile("a", range(14), False), tile("b", range(10, 24), False)]
    disguise(parts[1].model)
    merged = merge_tiles(parts, without_gps())
    [model] = merged.models
    assert not model.georegistered
    assert shape_error(model.model) < 0.01
    table = table_of(merged.models, without_gps())
    assert table["latitude"].null_count == table["geometry"].null_count == 24


def test_tiles_that_share_too_few_points_stay_apart() -> None:
    right = tile("right", range(10, 24))
    common = set(map(name_of, range(10, 14)))
    shared = [
        number
        for number in sorted(right.model.points3D)
        if common & {name for name, _ in keys(right.model, number)}
    ]
    for number in shared[20:]:
        right.model.delete_point3D(number)
    merged = merge_tiles([tile("left", range(14)), right], rows())
    assert len(merged.models) == 2
    assert not merged.decisions[0]["merged"]
    assert "30 are needed" in merged.decisions[0]["reason"]


def test_a_tile_whose_common_images_lie_elsewhere_is_refused_and_its_own_not_believed() -> None:
    # The points agree and the cameras do not: they do not see what their points say.
    right = tile("right", range(10, 24))
    for number in right.model.reg_image_ids():
        frame = right.model.image(number).frame
        pose = frame.rig_from_world
        frame.rig_from_world = pycolmap.Rigid3d(pose.rotation, pose.translation + [3.0, 0.0, 0.0])
    merged = merge_tiles([tile("left", range(14)), right], rows())
    assert "4 of 4 common images differ: median 3.0" in merged.decisions[0]["reason"]
    assert [each.name for each in merged.models] == ["left"]
    assert list(merged.unregistered) == [name_of(number) for number in range(14, 24)]
    assert all("parallax" in reason for reason in merged.unregistered.values())


def test_a_join_that_gps_contradicts_is_refused() -> None:
    # What is right's alone lies, by its GPS, 30 m from where the left puts it.
    torn = rows(sigma=0.0)
    for number in range(14, 24):
        place = street()[0][number] + [30.0, 0.0, 0.0]
        latitude, longitude, altitude = enu_to_geodetic(place[None], ORIGIN)[0].tolist()
        moved = {"latitude": latitude, "longitude": longitude, "altitude": altitude}
        torn[name_of(number)] |= moved
    merged = merge_tiles([tile("left", range(14)), tile("right", range(10, 24))], torn)
    assert "GPS and drives would contradict" in merged.decisions[0]["reason"]
    # Alone, too, GPS tears the right one apart: it is no part of the map, and named.
    assert [each.name for each in merged.models] == ["left"]
    assert [each["name"] for each in merged.left_out] == ["right"]
    assert name_of(20) in merged.unregistered


def shift_images(model: pycolmap.Reconstruction, numbers: Sequence[int], metres: float) -> None:
    for number in sorted(model.reg_image_ids()):
        image = model.image(number)
        if int(image.name[:3]) in numbers:
            pose = image.frame.rig_from_world
            moved = pycolmap.Rigid3d(pose.rotation, pose.translation + [metres, 0.0, 0.0])
            image.frame.rig_from_world = moved


@pytest.mark.medium
def test_one_common_image_that_two_tiles_place_apart_does_not_end_their_join() -> None:
    """Issue 19, 0: it stays where it sees more, or in neither; the others are joined."""
    left, right = tile("left", range(16)), tile("right", range(8, 24))
    shift_images(right.model, [10], 40.0)
    merged = merge_tiles([left, right], rows())
    assert [each["merged"] for each in merged.decisions] == [True]
    assert shape_error(merged.models[0].model) < 0.01
    assert merged.unregistered == {name_of(10): "two tiles have it in different places"}

    left, right = tile("left", range(16)), tile("right", range(8, 24))
    shift_images(right.model, [10], 40.0)
    image = next(i for i in right.model.images.values() if i.name == name_of(10))
    for number in image.get_observation_point2D_idxs()[::2]:
        right.model.delete_observation(image.image_id, number)
    merged = merge_tiles([left, right], rows())
    assert merged.models[0].model.num_reg_images() == 24
    assert merged.unregistered == {}
    assert shape_error(merged.models[0].model) < 0.01


def test_a_common_image_two_metres_apart_stays_where_it_sees_more() -> None:
    """Models bend by as much where they end: no reason to lose the photograph."""
    left, right = tile("left", range(16)), tile("right", range(8, 24))
    shift_images(right.model, [10], 2.0)
    merged = merge_tiles([left, right], rows())
    assert merged.models[0].model.num_reg_images() == 24
    assert merged.unregistered == {}
    assert shape_error(merged.models[0].model) < 0.01


def test_an_image_taken_out_of_the_base_has_the_pose_of_the_other() -> None:
    left, right = tile("left", range(16)), tile("right", range(8, 24))
    shift_images(left.model, [10], 40.0)
    image = next(i for i in left.model.images.values() if i.name == name_of(10))
    for number in image.get_observation_point2D_idxs()[::2]:
        left.model.delete_observation(image.image_id, number)
    assert left.model.num_reg_images() >= right.model.num_reg_images(), "left is the base"
    merged = merge_tiles([left, right], rows())
    assert merged.models[0].model.num_reg_images() == 24
    assert merged.unregistered == {}
    assert shape_error(merged.models[0].model) < 0.01


def test_a_photograph_that_gps_has_elsewhere_is_taken_out_and_named() -> None:
    """Issue 19, 0: registered, and 40 m from where its GPS and its drive have it."""
    model = tile("one", range(24))
    shift_images(model.model, [7], 40.0)
    merged = merge_tiles([model], rows())
    assert merged.models[0].model.num_reg_images() == 23
    assert merged.unregistered == {name_of(7): "GPS and its drive contradict its pose"}


def test_tiles_of_drives_that_gps_shifts_against_each_other_are_joined() -> None:
    """Issue 19, 0: each tile fits its own drive's GPS; where they meet, residuals must grow."""
    shifted = rows(sigma=0.0)
    for number in range(IMAGES):
        place = street()[0][number] + [0.0, 12.0 if number >= 12 else 0.0, 0.0]
        latitude, longitude, altitude = enu_to_geodetic(place[None], ORIGIN)[0].tolist()
        shifted[name_of(number)] |= {
            "latitude": latitude, "longitude": longitude, "altitude": altitude,
            "sequence_id": f"drive {number >= 12}", "sequence_index": number,
        }  # fmt: skip
    merged = merge_tiles([tile("left", range(14)), tile("right", range(10, 24))], shifted)
    assert [each["merged"] for each in merged.decisions] == [True]
    assert shape_error(merged.models[0].model) < 0.01
    assert merged.models[0].model.num_reg_images() == IMAGES


def test_a_tile_within_another_is_not_written_twice() -> None:
    inner = tile("inner", range(3, 8))
    for number in list(inner.model.points3D)[10:]:
        inner.model.delete_point3D(number)  # too little to join
    merged = merge_tiles([tile("outer", range(12)), inner], rows())
    assert [each.name for each in merged.models] == ["outer"]


def test_an_image_of_two_models_has_the_pose_of_the_larger() -> None:
    models = [tile("large", range(14)), tile("small", range(12, 20), georegistered=False)]
    table = table_of(models, rows())
    assert table.schema.remove_metadata().equals(tables.POSES.remove_metadata())
    assert table["image_id"].to_pylist() == [f"id{number:03d}" for number in range(20)]
    assert table["model"].to_pylist() == [0] * 14 + [1] * 6
    assert table["latitude"].null_count == table["predicted_error_m"].null_count == 6
    np.testing.assert_allclose(
        table["reprojection_error_px"].to_numpy(), 0.0, atol=1e-6, err_msg="an exact model"
    )
    places = np.array([table[name].to_numpy()[:14] for name in ("latitude", "longitude")]).T
    expected = enu_to_geodetic(street()[0][:14], ORIGIN)[:, :2]
    np.testing.assert_allclose(places, expected, atol=1e-9)


def test_poses_are_read_by_a_box_with_names_and_heights() -> None:
    """Issue 19, 23: the covering, COLMAP's names, altitudes in the geometry."""
    models = [tile("large", range(14)), tile("small", range(12, 20), georegistered=False)]
    table = table_of(models, rows())
    assert table["name"].to_pylist() == [name_of(number) for number in range(20)]
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    frame = geopandas.read_parquet(buffer)
    assert (
        shapely.get_z(np.asarray(frame.geometry.array)[:14]).tolist()
        == (table["altitude"].to_pylist()[:14])
    )
    x, y = frame.geometry.x[3], frame.geometry.y[3]
    box = (x - 1e-7, y - 1e-7, x + 1e-7, y + 1e-7)
    assert geopandas.read_parquet(buffer, bbox=box)["name"].tolist() == [name_of(3)]


def test_nothing_to_merge_is_an_empty_map() -> None:
    merged = merge_tiles([], rows())
    assert (merged.models, merged.reports, merged.decisions) == ([], [], [])
    assert table_of([], rows()).num_rows == 0


@pytest.mark.parametrize("order", [1, -1])
def test_the_same_tiles_make_the_same_model(order: int) -> None:
    def poses(step: int) -> np.ndarray:
        tiles = [tile("left", range(14)), tile("right", range(10, 24))][::step]
        return centres_and_rotations(merge_tiles(tiles, rows()).models[0].model)[1]

    np.testing.assert_array_equal(poses(order), poses(1))
