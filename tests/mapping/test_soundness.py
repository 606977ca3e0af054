"""Whether models hold: an exact street, and what is wrong with it by construction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.mapping.test_tile_merge import (
    FOCAL,
    HEIGHT,
    ORIGIN,
    WIDTH,
    model_of,
    name_of,
    rows,
    street,
)
from vladmap.features.colmap import pycolmap
from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.mapping.judging import JUDGED
from vladmap.mapping.soundness import (
    PairMatches,
    collapsed,
    contradicted,
    misplaced_images,
    read_pairs,
    remove_images,
    unexplained_images,
)

COUNT = 24


def pairs_of(model: pycolmap.Reconstruction) -> PairMatches:
    """The matches of each image with the next three: keypoints of the same points."""
    seen = {
        image.name: {point.point3D_id: point.xy for point in image.get_observation_points2D()}
        for image in model.images.values()
    }
    names_a, names_b, pair, rays = [], [], [], []
    for number in range(COUNT):
        for other in range(number + 1, min(number + 4, COUNT)):
            a, b = seen[name_of(number)], seen[name_of(other)]
            common = sorted(set(a) & set(b))
            pair += [len(names_a)] * len(common)
            rays += [np.concatenate([a[point], b[point]]) for point in common]
            names_a.append(name_of(number))
            names_b.append(name_of(other))
    plane = (np.array(rays) - [WIDTH / 2, HEIGHT / 2] * 2) / FOCAL
    limit = np.full(len(names_a), 8.0 / FOCAL)
    return PairMatches(names_a, names_b, np.array(pair), plane[:, :2], plane[:, 2:], limit)


def move(model: pycolmap.Reconstruction, number: int, by: pycolmap.Rigid3d) -> None:
    """Carry one image elsewhere: its pose after `by`."""
    image = next(image for image in model.images.values() if image.name == name_of(number))
    image.frame.rig_from_world = by * image.frame.rig_from_world


TURN = pycolmap.Rigid3d(
    pycolmap.Rotation3d(np.array([0.0, np.sin(0.9), 0.0, np.cos(0.9)])), np.zeros(3)
)


def along_drives(shift: dict[int, list[float]] | None = None) -> dict[str, dict[str, Any]]:
    """Rows of the street as one drive, the GPS of some photographs shifted."""
    by_name = rows()
    for number in range(COUNT):
        place = street()[0][number] + np.array((shift or {}).get(number, [0.0, 0.0, 0.0]))
        latitude, longitude, altitude = enu_to_geodetic(place[None], ORIGIN)[0].tolist()
        by_name[name_of(number)] |= {
            "latitude": latitude, "longitude": longitude, "altitude": altitude,
            "sequence_id": "drive", "sequence_index": number,
        }  # fmt: skip
    return by_name


def test_an_exact_model_explains_all_its_pairs() -> None:
    model = model_of(range(COUNT))
    assert unexplained_images(model, pairs_of(model)) == []


def test_a_photograph_turned_by_a_hundred_degrees_is_not_explained_by_its_pairs() -> None:
    """Issue 19, 0: one photograph of the city, 131 m off and turned by 105 degrees, stayed in."""
    model = model_of(range(COUNT))
    pairs = pairs_of(model)
    move(model, 9, TURN)
    assert unexplained_images(model, pairs) == [name_of(9)]


def test_a_photograph_without_pairs_in_its_model_is_not_explained() -> None:
    model = model_of([0, 1, 2, 20])
    assert unexplained_images(model, pairs_of(model_of(range(COUNT)))) == [name_of(20)]


def test_gps_and_drive_bear_out_an_exact_model() -> None:
    assert misplaced_images(model_of(range(COUNT)), along_drives(), ORIGIN, 1.0) == []


def test_a_photograph_far_off_its_drive_is_misplaced() -> None:
    """Issue 19, 0: with GPS of its own or without."""
    model = model_of(range(COUNT))
    move(model, 9, pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([0.0, 0.0, -60.0])))
    facts = along_drives()
    assert misplaced_images(model, facts, ORIGIN, 1.0) == [name_of(9)]
    facts[name_of(9)] |= {"latitude": None, "longitude": None}
    assert misplaced_images(model, facts, ORIGIN, 1.0) == [name_of(9)]


def test_gps_of_a_photograph_in_another_town_does_not_misplace_it() -> None:
    facts = along_drives({9: [3000.0, 0.0, 0.0]})
    assert misplaced_images(model_of(range(COUNT)), facts, ORIGIN, 1.0) == []


def test_an_offset_that_a_drive_shares_misplaces_nothing() -> None:
    """Issue 19, 0: a canyon shifts a street by 20 m; half a drive, and a whole one."""
    for first in (0, 12):
        facts = along_drives({number: [0.0, 20.0, 0.0] for number in range(first, COUNT)})
        assert misplaced_images(model_of(range(COUNT)), facts, ORIGIN, 1.0) == []


def test_a_jump_of_gps_there_and_back_misplaces_nothing_that_the_map_joins() -> None:
    jump = {number: [0.0, 55.0, 0.0] for number in range(9, 14)}
    facts = along_drives(jump)
    assert misplaced_images(model_of(range(COUNT)), facts, ORIGIN, 1.0) == []
    # The same photographs torn off in the map are misplaced.
    model = model_of(range(COUNT))
    for number in jump:
        image = next(image for image in model.images.values() if image.name == name_of(number))
        pose = image.frame.rig_from_world
        moved = pose.translation - pose.rotation.matrix() @ np.array([0.0, 55.0, 0.0])
        image.frame.rig_from_world = pycolmap.Rigid3d(pose.rotation, moved)
    assert set(misplaced_images(model, along_drives(), ORIGIN, 1.0)) >= {
        name_of(number) for number in jump
    }


def test_a_part_of_a_drive_that_the_map_tears_off_is_misplaced() -> None:
    model = model_of(range(COUNT))
    for number in range(15, COUNT):
        image = next(image for image in model.images.values() if image.name == name_of(number))
        pose = image.frame.rig_from_world
        moved = pose.translation - pose.rotation.matrix() @ np.array([0.0, 25.0, 0.0])
        image.frame.rig_from_world = pycolmap.Rigid3d(pose.rotation, moved)
    expected = [name_of(number) for number in range(15, COUNT)]
    assert misplaced_images(model, along_drives(), ORIGIN, 1.0) == expected
    assert contradicted(len(expected), COUNT)


def test_images_are_taken_out_with_what_they_saw() -> None:
    model = model_of(range(COUNT))
    remove_images(model, [name_of(3), name_of(4)])
    assert model.num_reg_images() == COUNT - 2
    seen = {
        model.image(element.image_id).name
        for point in model.points3D.values()
        for element in point.track.elements
    }
    assert not seen & {name_of(3), name_of(4)}
    assert all(point.track.length() >= 2 for point in model.points3D.values())


def test_pairs_mapped_together_that_gps_has_apart_are_collapsed() -> None:
    model = model_of([0, 1, 2, 3])
    mapped = float(np.linalg.norm(street()[0][0] - street()[0][1]))
    ids = ["0", "1", "2", "3", "9"]
    name_of_id = {each: name_of(int(each)) for each in ids}
    pairs = pa.table(
        {
            "image_id_a": ["0", "0", "0", "2", "1"],
            "image_id_b": ["1", "2", "3", "3", "9"],
            "verdict": ["kept"] * 5,
            # As mapped; far further apart; not known; much nearer than mapped; not in the model.
            "distance_m": [mapped, 60.0, None, 0.0, 60.0],
            "limit_m": [10.0] * 5,
        },
        schema=JUDGED,
    )
    assert collapsed(model, pairs, name_of_id) == [(name_of(0), name_of(2))]


def test_pairs_are_read_from_a_database(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    with pycolmap.Database.open(path) as database:
        camera = pycolmap.Camera(
            model="PINHOLE", width=WIDTH, height=HEIGHT, params=[FOCAL, FOCAL, 320.0, 240.0]
        )
        camera.camera_id = 1
        database.write_camera(camera, use_camera_id=True)
        for number in (1, 2):
            image = pycolmap.Image(name=name_of(number), camera_id=1, image_id=number)
            database.write_image(image, use_image_id=True)
            keypoints = np.array([[320.0, 240.0], [420.0 + number, 240.0]], np.float32)
            database.write_keypoints(number, keypoints)
        geometry = pycolmap.TwoViewGeometry()
        geometry.inlier_matches = np.array([[0, 0], [1, 1]], np.uint32)
        database.write_two_view_geometry(1, 2, geometry)
    pairs = read_pairs(path)
    assert (pairs.names_a, pairs.names_b) == ([name_of(1)], [name_of(2)])
    np.testing.assert_allclose(pairs.rays_a, [[0, 0], [101 / FOCAL, 0]], atol=1e-6)
    np.testing.assert_allclose(pairs.rays_b, [[0, 0], [102 / FOCAL, 0]], atol=1e-6)
    assert pairs.pair.tolist() == [0, 0]
