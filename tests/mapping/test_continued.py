"""A model continued with new images is as exact as one made at once, and touches what it must."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.mapping.test_posed_mapper import database, off_by, shape_error_m
from tests.mapping.view_graph.street import CAMERA, Street, street
from vladmap.features.base import LocalFeatures
from vladmap.features.colmap import pycolmap
from vladmap.mapping.continued import CannotContinue, continue_model
from vladmap.mapping.georegister import centres_and_rotations
from vladmap.mapping.mapper import MapperOptions, write_database
from vladmap.mapping.posed_mapper import map_from_poses
from vladmap.mapping.two_view import TwoView

pytestmark = pytest.mark.medium

IMAGES, OLD = 24, 18


@pytest.fixture(scope="module")
def there() -> Street:
    return street(IMAGES)


@pytest.fixture(scope="module")
def before(there: Street, tmp_path_factory: pytest.TempPathFactory) -> pycolmap.Reconstruction:
    """The model of the first photographs alone."""
    folder = tmp_path_factory.mktemp("before")
    path = some(folder, there, [view for view in there.views() if newest(view) < OLD])
    poses = {name: pose for name, pose in off_by(there, 0.5, 0.5).items() if int(name[:4]) < OLD}
    (model,) = map_from_poses(path, poses, CAMERA.width, MapperOptions())
    return model


def newest(view: TwoView) -> int:
    return max(int(view.image_id_a), int(view.image_id_b))


def some(folder: Path, there: Street, views: list[TwoView], noise_px: float = 0.0) -> Path:
    """A database of some pairs, its keypoints with noise."""
    rng = np.random.default_rng(5)
    features = {
        each: LocalFeatures(
            np.hstack(
                [pixels + rng.normal(0, noise_px, pixels.shape), np.ones((len(pixels), 2))]
            ).astype(np.float32),
            np.zeros((len(pixels), 0), np.uint8),
            (CAMERA.width, CAMERA.height),
        )
        for each, pixels in zip(there.ids, there.pixels, strict=True)
    }
    names = {each: f"{each}.jpg" for each in there.ids}
    keys = dict.fromkeys(there.ids, "camera")
    path = folder / "database.db"
    write_database(path, names, {"camera": CAMERA}, keys, features, views)
    return path


def centres(model: pycolmap.Reconstruction) -> dict[str, np.ndarray]:
    return dict(zip(*centres_and_rotations(model)[:2], strict=True))


def test_new_images_are_registered_as_exactly_as_the_old_ones(
    there: Street, before: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    grown = continue_model(before, database(tmp_path, there), CAMERA.width)
    names = [f"{number:04d}.jpg" for number in range(OLD, IMAGES)]
    assert grown.candidates == grown.registered == names
    at = centres(grown.model)
    assert shape_error_m(there, list(at), np.array(list(at.values()))) < 0.01
    assert grown.model.compute_mean_reprojection_error() < 0.1
    # Each new one sees points, and old points are seen by new ones: one map, not two.
    first = grown.model.find_image_with_name(names[0])
    old_too = [
        any(grown.model.image(each.image_id).name < names[0] for each in track)
        for track in (
            grown.model.point3D(point.point3D_id).track.elements
            for point in first.get_observation_points2D()
        )
    ]
    assert sum(old_too) > 15


def test_images_that_share_nothing_with_new_ones_stay_exactly_where_they_are(
    there: Street, before: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    grown = continue_model(before, database(tmp_path, there), CAMERA.width)
    was, now = centres(before), centres(grown.model)
    moved = {name for name in was if not np.array_equal(was[name], now[name])}
    assert "0000.jpg" not in moved
    assert 0 < len(moved) < OLD
    assert len(moved) + len(grown.registered) <= grown.freed


def test_the_same_growth_gives_the_same_model(
    there: Street, before: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    path, written = database(tmp_path, there), []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        continue_model(before, path, CAMERA.width).model.write_binary(folder)
        written.append({each.name: each.read_bytes() for each in folder.iterdir()})
    assert written[0] == written[1]
    assert written[0]["points3D.bin"]


def test_what_no_trusted_pair_joins_to_its_point_any_more_leaves_it(
    there: Street, before: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    """All pairs of one image are not believed any more: it keeps its pose and sees no point."""
    lonely = f"{4:04d}"
    views = [view for view in there.views() if lonely not in (view.image_id_a, view.image_id_b)]
    [shown] = [image for image in before.images.values() if image.name == f"{lonely}.jpg"]
    assert shown.num_points3D > 100
    # COLMAP leaves an image without any pair out of what it reads.
    grown = continue_model(before, some(tmp_path, there, views), CAMERA.width)
    assert f"{lonely}.jpg" not in centres(grown.model)
    few = [view for view in there.views() if lonely not in (view.image_id_a, view.image_id_b)]
    [one] = [
        view for view in there.views() if (view.image_id_a, view.image_id_b) == (lonely, "0005")
    ]
    (tmp_path / "few").mkdir()
    grown = continue_model(before, some(tmp_path / "few", there, [*few, one]), CAMERA.width)
    assert grown.unjoined > 0
    kept = grown.model.find_image_with_name(f"{lonely}.jpg")
    matched = set(one.inliers[:, 0].tolist())
    seen = [index for index, point in enumerate(kept.points2D) if point.has_point3D()]
    assert seen
    assert set(seen) <= matched


def test_a_new_image_whose_matches_are_chance_is_left_out(
    there: Street, before: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    views = []
    for view in there.views():
        if newest(view) == OLD and view.inliers.size:
            shuffled = np.column_stack([view.inliers[:, 0], rng.permutation(view.inliers[:, 1])])
            view = replace(view, inliers=shuffled.astype(np.uint32))
        views += [view] * (newest(view) <= OLD)
    grown = continue_model(before, some(tmp_path, there, views), CAMERA.width)
    assert grown.candidates == [f"{OLD:04d}.jpg"]
    assert grown.registered == []


def test_other_keypoints_cannot_be_continued(
    there: Street, before: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    fewer = replace(there, pixels=[pixels[:-1] for pixels in there.pixels])
    views = [
        replace(view, inliers=view.inliers[(view.inliers < 20).all(axis=1)])
        for view in there.views()
    ]
    with pytest.raises(CannotContinue, match="other keypoints"):
        continue_model(before, some(tmp_path, fewer, views), CAMERA.width)


def test_a_camera_that_is_new_to_the_model_is_calibrated_and_those_it_had_are_not(
    there: Street, before: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    """New photographs whose focal length is stated 3 % too long."""
    old = pycolmap.Reconstruction(before)
    gone = [image for image in old.images.values() if int(image.name[:4]) >= IMAGES - 12]
    for image in gone:
        old.deregister_frame(image.frame_id)
    features = {
        each: LocalFeatures(
            np.hstack([pixels, np.ones((len(pixels), 2))]).astype(np.float32),
            np.zeros((len(pixels), 0), np.uint8),
            (CAMERA.width, CAMERA.height),
        )
        for each, pixels in zip(there.ids, there.pixels, strict=True)
    }
    wrong = replace(CAMERA, params=(1.03 * CAMERA.params[0], *CAMERA.params[1:]))
    keys = {each: "new" if int(each) >= IMAGES - 12 else "camera" for each in there.ids}
    names = {each: f"{each}.jpg" for each in there.ids}
    path = tmp_path / "database.db"
    cameras = {"camera": CAMERA, "new": wrong}
    write_database(path, names, cameras, keys, features, there.views())
    grown = continue_model(old, path, CAMERA.width)
    assert (len(grown.registered), grown.calibrated) == (12, 1)
    focal = {
        image.name: grown.model.camera(image.camera_id).params[0]
        for image in grown.model.images.values()
    }
    assert focal["0000.jpg"] == old.camera(1).params[0]
    assert focal[f"{IMAGES - 1:04d}.jpg"] == pytest.approx(CAMERA.params[0], rel=0.002)
