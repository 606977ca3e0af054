"""Issue 19, 1: no image is registered without points that parallax has placed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from tests.mapping.test_tile_merge import model_of, name_of
from vladmap.features.base import LocalFeatures
from vladmap.features.colmap import pycolmap
from vladmap.mapping.camera import Camera
from vladmap.mapping.camera_keys import camera_keys
from vladmap.mapping.evidence import MIN_POINTS, keep_evident
from vladmap.mapping.mapper import image_names
from vladmap.mapping.pure_rotation import turning_views
from vladmap.mapping.reconstruct import reconstruct_tile
from vladmap.mapping.two_view import TwoView, two_view_table, verify
from vladmap.schemas import tables

pytestmark = pytest.mark.medium

Array = NDArray[np.float64]

WIDTH, HEIGHT, FOCAL = 640, 480, 500.0
FRAMES = 8


def camera(factor: float = 1.0) -> Camera:
    params = (FOCAL * factor, WIDTH / 2, HEIGHT / 2)
    return Camera("SIMPLE_PINHOLE", WIDTH, HEIGHT, params, True)


def pictures(
    step_m: float, turn_deg: float, noise_px: float = 0.5
) -> tuple[dict[str, LocalFeatures], list[TwoView]]:
    """Keypoints and true matches of frames `step_m` aside and `turn_deg` round from one another.

    What they see lies 4 to 60 metres around them. Each view has an image's keypoints in one order.
    """
    rng = np.random.default_rng(3)
    bearing, distance = rng.uniform(-1.6, 1.6, 4000), rng.uniform(4, 60, 4000)
    points = np.stack(
        [distance * np.sin(bearing), rng.uniform(-0.4, 0.4, 4000) * distance,
         distance * np.cos(bearing)], axis=1,
    )  # fmt: skip
    features, seen = {}, {}
    for frame in range(FRAMES):
        angle = np.radians(turn_deg * (frame - FRAMES / 2))
        turn = np.array(
            [[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]]
        )
        local = (points - [step_m * frame, 0, 0]) @ turn.T
        with np.errstate(divide="ignore", invalid="ignore"):
            pixel = FOCAL * local[:, :2] / local[:, 2:] + [WIDTH / 2, HEIGHT / 2]
        inside = (pixel > 0).all(axis=1) & (pixel < [WIDTH, HEIGHT]).all(axis=1)
        seen[f"id{frame}"] = visible = np.flatnonzero((local[:, 2] > 1) & inside)
        keypoints = np.zeros((len(visible), 4), np.float32)
        keypoints[:, :2] = pixel[visible] + rng.normal(0, noise_px, (len(visible), 2))
        features[f"id{frame}"] = LocalFeatures(keypoints, np.zeros((len(visible), 128), np.uint8))
    return features, matched(features, seen, camera())


def matched(
    features: dict[str, LocalFeatures], seen: dict[str, Any], of: dict[str, Any]
) -> list[TwoView]:
    views = []
    for a in sorted(seen):
        for b in sorted(seen):
            if a < b:
                _, at, to = np.intersect1d(seen[a], seen[b], return_indices=True)
                pairs = np.stack([at, to], axis=1).astype(np.uint32)
                views.append(verify(a, b, features[a], features[b], pairs, of, of))
    return [view for view in views if view.verified]


def rows() -> Any:
    """Rows of IMAGES; GPS is the noise, three metres, of a receiver that stands still."""
    noise = np.random.default_rng(1).normal(0, 3.0, (FRAMES, 2)) / 111_000
    empty = dict.fromkeys(tables.IMAGES.names)
    listed = [
        {
            **empty, "image_id": f"id{number}", "uri": f"{number}.jpg", "content_hash": "",
            "width": WIDTH, "height": HEIGHT, "latitude": 48 + at[0], "longitude": 16 + at[1],
            "altitude": 100.0, "cell": "none", "sharpness": 1.0, "projection": "perspective",
        }
        for number, at in enumerate(noise)
    ]  # fmt: skip
    known = [name for name in tables.IMAGES.names if name in listed[0]]
    return pa.Table.from_pylist(listed, pa.schema([tables.IMAGES.field(name) for name in known]))


def mapped(features: dict[str, LocalFeatures], views: list[TwoView], of: Any, folder: Path) -> Any:
    images = rows()
    return reconstruct_tile(
        "tile", folder, images, features.__getitem__, two_view_table(views),
        {camera_keys(images)[0]: of}, time_limit_s=120.0,
    )  # fmt: skip


def test_all_images_of_a_sound_model_stay() -> None:
    model = model_of(range(12))
    evident = keep_evident([model], 3)
    assert [part.num_reg_images() for part in evident.models] == [12]
    assert evident.dropped == {}


def test_an_image_that_sees_too_few_points_is_taken_out_and_the_reason_told() -> None:
    model = model_of(range(12))
    poor = model.image(5)
    seen = [index for index, point in enumerate(poor.points2D) if point.has_point3D()]
    for index in seen[MIN_POINTS - 1 :]:
        model.delete_observation(5, index)
    evident = keep_evident([model], 3)
    assert [part.num_reg_images() for part in evident.models] == [11]
    assert list(evident.dropped) == [name_of(4)]
    assert f"14 points with parallax, {MIN_POINTS} are needed" in evident.dropped[name_of(4)]


def test_points_that_an_image_taken_out_had_placed_are_none_for_the_others() -> None:
    # A chain: each image shares its points with the one before alone, the last but a few.
    model = model_of(range(4))
    for number in list(model.points3D):
        images = {element.image_id for element in model.point3D(number).track.elements}
        if not images <= {1, 2} and not images <= {3, 4}:
            model.delete_point3D(number)
    shared = [
        number
        for number in sorted(model.points3D)
        if {element.image_id for element in model.point3D(number).track.elements} == {3, 4}
    ]
    assert len(shared) > MIN_POINTS
    evident = keep_evident([pycolmap.Reconstruction(model)], 2)
    assert [image_names(part) for part in evident.models] == [
        [name_of(0), name_of(1)], [name_of(2), name_of(3)],
    ]  # fmt: skip
    for number in shared[MIN_POINTS - 1 :]:
        model.delete_point3D(number)
    evident = keep_evident([model], 2)
    assert [image_names(part) for part in evident.models] == [[name_of(0), name_of(1)]]
    assert list(evident.dropped) == [name_of(2), name_of(3)]


def test_a_model_left_too_small_is_none() -> None:
    evident = keep_evident([model_of(range(2))], 3)
    assert evident.models == []
    assert "left with 2 of the 3 images that it takes" in evident.dropped[name_of(0)]


def test_observations_that_miss_their_keypoint_are_no_evidence() -> None:
    model = model_of(range(12))
    for number in list(model.points3D):
        model.point3D(number).xyz = model.point3D(number).xyz + [0.0, 0.0, 30.0]
    assert keep_evident([model], 3).models == []


@pytest.mark.parametrize("factor", [0.75, 1.0, 1.3])
def test_a_turn_is_told_from_a_step_aside_whatever_the_focal_length(factor: float) -> None:
    of = {f"id{frame}": camera(factor) for frame in range(FRAMES)}
    features, views = pictures(step_m=0.0, turn_deg=7.0)
    assert len(views) > FRAMES
    assert turning_views(views, features, of).all()
    features, views = pictures(step_m=1.0, turn_deg=7.0)
    assert len(views) > FRAMES
    assert not turning_views(views, features, of).any()


@pytest.mark.parametrize("factor", [0.75, 1.0, 1.3])
def test_a_camera_that_only_turns_registers_nothing_and_says_why(
    factor: float, tmp_path: Path
) -> None:
    features, views = pictures(step_m=0.0, turn_deg=7.0)
    result = mapped(features, views, camera(factor), tmp_path)
    assert result.failure is not None
    assert "no parallax" in result.failure
    assert not list(tmp_path.rglob("*.bin"))
    assert set(result.report["unregistered"]) == set(features)
    assert all("no parallax" in reason for reason in result.report["unregistered"].values())


def test_a_model_made_of_a_turn_alone_does_not_stand(tmp_path: Path) -> None:
    # Half the turn read as a way past a wall: angles enough, errors within bounds, no depth.
    features, views = pictures(step_m=0.0, turn_deg=1.5, noise_px=0.3)
    model = pycolmap.Reconstruction()
    made = camera().to_colmap()
    made.camera_id = 1
    model.add_camera_with_trivial_rig(made)
    depth, half = 20.0, np.radians(0.75)
    for frame in range(FRAMES):
        angle = half * (frame - FRAMES / 2)
        turn = np.array(
            [[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]]
        )
        centre = np.array([depth * angle, 0.0, 0.0])
        image = pycolmap.Image(
            name=f"{frame}.jpg", keypoints=features[f"id{frame}"].keypoints[:, :2].astype(float),
            camera_id=1, image_id=frame + 1,
        )  # fmt: skip
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(turn), -turn @ centre)
        model.add_image_with_trivial_frame(image, pose)
    [view] = [view for view in views if (view.image_id_a, view.image_id_b) == ("id1", "id6")]
    for a, b in view.inliers.tolist():
        rays = []
        for frame, index in ((1, a), (6, b)):
            pose = model.image(frame + 1).cam_from_world()
            ray = made.cam_ray_from_img(features[f"id{frame}"].keypoints[index, :2].astype(float))
            rays.append((pose.tgt_origin_in_src(), pose.rotation.inverse() * ray))
        (from_a, to_a), (from_b, to_b) = rays
        along = np.linalg.lstsq(np.stack([to_a, -to_b], axis=1), from_b - from_a, rcond=None)[0]
        track = pycolmap.Track()
        track.add_elements([pycolmap.TrackElement(2, a), pycolmap.TrackElement(7, b)])
        model.add_point3D((from_a + along[0] * to_a + from_b + along[1] * to_b) / 2, track)
    model.update_point_3d_errors()
    assert model.num_points3D() > 100
    assert model.compute_mean_reprojection_error() < 2.0
    evident = keep_evident([model], 2)
    assert evident.models == []
    assert "a turn on the spot explains" in evident.dropped["1.jpg"]


def test_a_camera_that_moves_is_mapped_and_nothing_of_it_lost(tmp_path: Path) -> None:
    features, views = pictures(step_m=1.0, turn_deg=3.0)
    result = mapped(features, views, camera(), tmp_path)
    assert result.failure is None
    assert result.report["models"][0]["images"] == FRAMES
    assert result.report["unregistered"] == {}


def test_frames_on_a_tripod_stay_where_others_give_their_points_depth(tmp_path: Path) -> None:
    features, views = pictures(step_m=1.0, turn_deg=3.0)
    standing = {f"id{frame}" for frame in (6, 7)}
    # An image twice: between the two is no parallax, but the others see the same points.
    twin = {
        **features, "id7": LocalFeatures(features["id6"].keypoints, features["id6"].descriptors)
    }  # fmt: skip
    again = [
        TwoView(
            view.image_id_a, "id7", view.configuration, view.matches, view.inliers,
            view.fundamental, view.essential, view.homography, view.rotation, view.translation,
        )
        for view in views
        if view.image_id_b == "id6"
    ]  # fmt: skip
    rest = [view for view in views if "id7" not in (view.image_id_a, view.image_id_b)]
    result = mapped(twin, rest + again, camera(), tmp_path)
    assert result.failure is None
    assert not standing & set(result.report["unregistered"])
