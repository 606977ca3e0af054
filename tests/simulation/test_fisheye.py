"""The equidistant fisheye: its projection by hand, and its pictures beside those of a pinhole."""

from __future__ import annotations

import numpy as np
import pytest

from vladmap.simulation.camera import Camera, Poses
from vladmap.simulation.city import City
from vladmap.simulation.conditions import Conditions
from vladmap.simulation.fisheye import Fisheye, faces_of
from vladmap.simulation.overlap import SHRINK, sight_of
from vladmap.simulation.photographing import light_of


def test_a_point_appears_in_proportion_to_its_angle() -> None:
    # 60 degrees to the right: 268 * pi / 3 = 280.65 px from the principal point.
    point = np.array([np.sin(np.pi / 3), 0.0, np.cos(np.pi / 3)])
    np.testing.assert_allclose(Fisheye().pixels(point), [320 + 280.649, 240], atol=1e-3)
    # Behind the camera's plane as well, up to straight behind it.
    behind = np.array([0.0, 1.0, -1.0])
    np.testing.assert_allclose(Fisheye().pixels(behind), [320, 240 + 268 * 0.75 * np.pi])


def test_rays_are_unit_and_appear_where_they_came_from() -> None:
    camera = Fisheye(64, 48, 26.8)
    rays = camera.rays()
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1.0)
    x, y = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    np.testing.assert_allclose(camera.pixels(rays), np.stack([x, y], -1), atol=1e-9)


def test_each_pixel_lies_well_within_its_face() -> None:
    faces = faces_of(Fisheye())
    size = np.array([faces.camera.width, faces.camera.height])
    assert faces.pixel.min() > 1.0
    assert (size - faces.pixel).min() > 1.0
    assert set(np.unique(faces.face)) == {0, 1, 2}
    np.testing.assert_allclose(
        faces.turns @ faces.turns.transpose(0, 2, 1), np.tile(np.eye(3), (3, 1, 1)), atol=1e-12
    )


@pytest.mark.medium
def test_a_fisheye_shows_what_a_pinhole_beside_it_shows(city: City) -> None:
    pose = Poses.looking(np.array([[2.0, 20.0, 2.2]]), np.zeros(1), np.zeros(1), np.zeros(1))
    noon = Conditions.at(12.0)
    flat, bent = (light_of(city, pose, camera, noon).numpy() for camera in (Camera(), Fisheye()))
    rays = Camera().rays()[::7, ::7].reshape(-1, 3)
    x, y = np.floor(Fisheye().pixels(rays)).astype(int).T
    difference = np.abs(bent[:, y, x] - flat[:, ::7, ::7].reshape(3, -1)).mean(0)
    chance = np.abs(bent[:, y, x] - np.roll(flat[:, ::7, ::7].reshape(3, -1), 500, 1)).mean(0)
    assert np.median(difference) < 0.25 * np.median(chance)


@pytest.mark.medium
def test_ranges_of_the_road_are_those_of_a_plane_for_all_cameras(city: City) -> None:
    pose = Poses.looking(np.array([[2.0, 20.0, 2.2]]), np.zeros(1), np.zeros(1), np.zeros(1))
    for camera in (Camera(), Fisheye()):
        rays = camera.smaller(SHRINK).rays() @ pose.rotation[0]
        ranges = sight_of(city, pose, camera).ranges(rays)
        places = pose.centre[0] + ranges[..., None] * rays
        down = 2.2 / np.maximum(-rays[..., 2], 1e-9)
        aside = 2.0 + down * rays[..., 0]
        ahead = 20.0 + down * rays[..., 1]
        # The bare road: between the kerbs, before whatever stands farther on.
        road = (np.abs(aside) < 3.9) & (ahead > 21.0) & (ahead < 30.0) & (rays[..., 2] < 0)
        assert road.sum() > 300
        # At the edges of what stands there, a ray may be given the surface beside it.
        assert (np.abs(places[road][:, 2]) < 1e-3).mean() > 0.995
