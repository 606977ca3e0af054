"""What of a merged map is adjusted, how much of it, and how tracks of several tiles become one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.mapping.test_tile_merge import IMAGES, model_of, name_of, shape_error, street
from vladmap.features.colmap import pycolmap
from vladmap.mapping import skeleton as thinned
from vladmap.mapping.georegister import Similarity
from vladmap.mapping.image_poses import Candidates, candidates_of, settle
from vladmap.mapping.seams import adjust_seams, find_seams, remove_misfits
from vladmap.mapping.skeleton import skeleton
from vladmap.mapping.tile_arrays import TileArrays, tile_arrays
from vladmap.mapping.track_join import Tracks, build_model, join_tracks

SAME = Similarity(1.0, np.eye(3), np.zeros(3))


def row_of_images(count: int, points: int = 20) -> tuple[np.ndarray, Tracks]:
    """COLMAP ids of observations and tracks: each image sees points with the next one alone."""
    first = np.repeat(np.arange(count - 1), points)
    image = np.stack([first, first + 1], axis=1).ravel()
    point = np.repeat(np.arange(len(first)), 2)
    places = np.zeros((len(first), 3))
    return 1 + image, Tracks(
        places, image, np.arange(len(image)), point, np.zeros(len(first), bool)
    )


@pytest.mark.parametrize("tiles", [2, 3, 6, 12])
def test_what_is_adjusted_grows_with_the_seams_and_not_with_the_tiles(tiles: int) -> None:
    """Two images a seam and one beside them on either side are free: four; five steps between."""
    for size in (20, 60):
        ids, tracks = row_of_images(tiles * size)
        seam = np.arange(1, tiles) * size
        seams = find_seams(1 + np.sort(np.concatenate([seam, seam + 1])), ids, tracks)
        assert seams.figures() == {
            "free_images": 4 * (tiles - 1),
            "free_points": 5 * 20 * (tiles - 1),
            "blocks": tiles - 1,
            "images_in_largest_block": 4,
        }
        assert not seams.loose.any(), "images that are not free hold each block"


def test_a_block_that_nothing_holds_is_known() -> None:
    ids, tracks = row_of_images(4)
    seams = find_seams(np.array([2, 3]), ids, tracks)
    assert (len(seams.images), seams.loose.tolist()) == (4, [True])


def test_only_the_seams_of_a_model_move_and_come_back_to_the_truth() -> None:
    models = [model_of(range(14)), model_of(range(10, 24))]
    tiles = [tile_arrays(each, {name_of(n): n for n in range(IMAGES)}) for each in models]
    poses = settle(candidates_of(tiles, [SAME, SAME]), 1.0)
    tracks = join_tracks(tiles, [SAME, SAME], poses.accepted)
    model, tracks = build_model(models, poses, [name_of(n) for n in range(IMAGES)], tracks)
    ids = 1 + tracks.image
    seams = find_seams(np.array([1, 2]), ids, tracks)
    fixed = [n for n in range(1, IMAGES + 1) if n not in seams.images.tolist()]
    assert fixed, "the street turns: its end sees nothing of its start"
    before = [model.image(n).cam_from_world().matrix() for n in fixed]
    for number in (1, 2):
        frame = model.image(number).frame
        pose = frame.rig_from_world
        frame.rig_from_world = pycolmap.Rigid3d(pose.rotation, pose.translation + [0.1, 0.0, 0.1])
    assert shape_error(model) > 0.05
    adjust_seams(model, seams)
    assert shape_error(model) < 0.01
    for number, matrix in zip(fixed, before, strict=True):
        np.testing.assert_array_equal(model.image(number).cam_from_world().matrix(), matrix)
    assert remove_misfits(model, ids, tracks) == 0


def test_an_observation_far_off_its_point_is_removed_and_counted() -> None:
    models = [model_of(range(8))]
    tiles = [tile_arrays(models[0], {name_of(n): n for n in range(IMAGES)})]
    poses = settle(candidates_of(tiles, [SAME]), 1.0)
    tracks = join_tracks(tiles, [SAME], poses.accepted)
    model, tracks = build_model(models, poses, [name_of(n) for n in range(IMAGES)], tracks)
    long = int(np.flatnonzero(np.bincount(tracks.point) >= 4)[0])
    rows = np.flatnonzero(tracks.point == long)
    model.point3D(1 + long).xyz = street()[0][0] + [500.0, 0.0, 0.0]
    assert remove_misfits(model, 1 + tracks.image, tracks) == len(rows)
    assert not model.exists_point3D(1 + long)
    assert model.is_valid()


@pytest.mark.parametrize("images", [20, 80])
def test_the_sample_of_points_is_bounded_for_each_image(
    images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thinned, "POINTS_PER_IMAGE", 10)
    _, tracks = row_of_images(images, points=50)
    chosen = skeleton(tracks)
    by_image = np.bincount(tracks.image[chosen], minlength=images)
    assert by_image.min() >= 10
    assert chosen.sum() <= 2 * 10 * images, "each point that an image draws is seen twice"
    whole = np.bincount(tracks.point[chosen])
    assert set(whole[whole > 0]) == {2}, "a track is used whole or not at all"


def tile_of(tracks: list[list[tuple[int, int]]], images: int = 3) -> TileArrays:
    """A tile whose tracks are lists of (image, keypoint)."""
    seen = np.array([(*key, row) for row, track in enumerate(tracks) for key in track], np.int64)
    return TileArrays(
        np.arange(images),
        np.zeros((images, 3)),
        np.tile(np.eye(3), (images, 1, 1)),
        np.bincount(seen[:, 0], minlength=images),
        np.arange(len(tracks))[:, None] * np.ones(3),
        *seen.T,
    )


def joined(*tiles: TileArrays) -> tuple[set[frozenset[tuple[int, int]]], Tracks]:
    accepted = np.array([(image, row) for row, tile in enumerate(tiles) for image in tile.image])
    tracks = join_tracks(tiles, [SAME] * len(tiles), accepted)
    keys: dict[int, set[tuple[int, int]]] = {}
    for image, keypoint, point in zip(
        tracks.image.tolist(), tracks.keypoint.tolist(), tracks.point.tolist(), strict=True
    ):
        keys.setdefault(point, set()).add((image, keypoint))
    return {frozenset(each) for each in keys.values()}, tracks


def test_tracks_of_three_tiles_that_meet_are_one_at_their_weighted_middle() -> None:
    """The second point of b bridges a and c; its place is 1, those of two observations each."""
    a = tile_of([[(0, 5), (1, 5)]])
    b = tile_of([[(0, 1), (1, 1)], [(1, 5), (2, 5)]])
    c = tile_of([[(2, 5), (0, 5)]])
    keys, tracks = joined(a, b, c)
    assert keys == {
        frozenset({(0, 5), (1, 5), (2, 5)}), frozenset({(0, 1), (1, 1)}),
    }  # fmt: skip
    assert (tracks.joined.sum(), tracks.conflicts) == (1, 0)
    np.testing.assert_allclose(tracks.places[tracks.joined], [[1 / 3] * 3])


def test_tracks_that_one_image_would_see_twice_stay_apart() -> None:
    """a has keypoint 5 of image 0, b has 6: they meet in image 1, which a, the longer, keeps."""
    a = tile_of([[(0, 5), (1, 5), (2, 5)]])
    b = tile_of([[(0, 6), (1, 5)], [(0, 7), (1, 7)]])
    keys, tracks = joined(a, b)
    assert keys == {frozenset({(0, 5), (1, 5), (2, 5)}), frozenset({(0, 7), (1, 7)})}
    assert (int(tracks.joined.sum()), tracks.conflicts) == (0, 1)


def test_an_image_takes_the_pose_that_most_points_support() -> None:
    """Two tiles of 40 points outvote one of 60, which is 2 m off: bent, not far off."""
    found = settle(
        Candidates(
            np.zeros(3, np.int64), np.arange(3), np.array([60, 40, 40]),
            np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.2, 0.0, 0.0]]),
            np.tile(np.eye(3), (3, 1, 1)),
        ),
        1.0,
    )  # fmt: skip
    np.testing.assert_allclose(found.centres, [[0.1, 0.0, 0.0]])
    assert found.accepted.tolist() == [[0, 1], [0, 2]]
    assert (found.tile.tolist(), found.tiles.tolist(), found.torn.tolist()) == ([1], [2], [])


def test_an_image_of_two_places_far_apart_is_given_up_unless_one_sees_clearly_more() -> None:
    for points, torn in (([60, 50], [0]), ([90, 50], [])):
        found = settle(
            Candidates(
                np.zeros(2, np.int64), np.arange(2), np.array(points),
                np.array([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]), np.tile(np.eye(3), (2, 1, 1)),
            ),
            1.0,
        )  # fmt: skip
        assert found.torn.tolist() == torn
