"""Pictures of a city agree with its geometry, with each other and with the light."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vladmap.simulation.camera import Array, Camera, Poses, project
from vladmap.simulation.city import City, build_city
from vladmap.simulation.conditions import Conditions
from vladmap.simulation.render import depth_map, render
from vladmap.simulation.route import drive

pytestmark = pytest.mark.medium

NOON = Conditions.at(12.0)
SMALL = Camera(width=160, height=120, fx=106.25, fy=106.25, cx=80.0, cy=60.0)


def at(*places: tuple[float, float, float], heading: float) -> Poses:
    count = len(places)
    return Poses.looking(
        np.array(places), np.full(count, heading), np.full(count, 2.0), np.zeros(count)
    )


def points_seen(depth: torch.Tensor, poses: Poses, camera: Camera) -> tuple[Array, Array]:
    """Pixel centres (P, 2) whose depth is known, and their points (P, 3) in the city."""
    y, x = np.nonzero(np.isfinite(depth.numpy()))
    pixels = np.column_stack([x + 0.5, y + 0.5])
    rays = np.column_stack([pixels, np.ones(len(x))]) @ np.linalg.inv(camera.intrinsics).T
    local = rays * depth.numpy()[y, x, None]
    return pixels, local @ poses.rotation[0] + poses.centre[0]


def grey(picture: torch.Tensor) -> Array:
    return picture.double().mean(-1).numpy()


def test_the_road_is_at_height_zero_and_as_far_as_geometry_says(city: City) -> None:
    poses = at((2.0, 30.0, 2.2), heading=0.0)
    depth = depth_map(city, poses, Camera())
    pixels, points = points_seen(depth[0], poses, Camera())
    road = (np.abs(points[:, 0]) < 3.5) & (np.abs(points[:, 1] - 40.0) < 5.0)
    below = road & (pixels[:, 1] > 300)
    assert below.sum() > 1000
    np.testing.assert_allclose(points[below, 2], 0.0, atol=1e-3)


def test_the_same_point_looks_alike_from_two_places(city: City) -> None:
    first, second = at((2.0, 20.0, 2.2), heading=10.0), at((1.6, 21.5, 2.3), heading=6.0)
    camera = Camera()
    depths = depth_map(city, first, camera), depth_map(city, second, camera)
    images = grey(render(city, first, camera, NOON)[0]), grey(render(city, second, camera, NOON)[0])
    pixels, points = points_seen(depths[0][0], first, camera)
    there, depth = project(points, second, camera)
    x, y = np.floor(there[0]).astype(int).T
    inside = (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height) & (depth[0] > 0)
    pixels, depth, x, y = pixels[inside], depth[0][inside], x[inside], y[inside]
    visible = np.abs(depths[1][0].numpy()[y, x] / depth - 1.0) < 0.02
    a = images[0][pixels[:, 1].astype(int), pixels[:, 0].astype(int)][visible]
    b = images[1][y[visible], x[visible]]
    assert visible.mean() > 0.8
    assert np.corrcoef(a, b)[0, 1] > 0.9
    assert np.median(np.abs(a - b)) < 6.0  # grey levels; chance would be some 40
    assert np.median(np.abs(a - np.roll(b, 500))) > 15.0


def test_a_batch_equals_its_single_pictures_and_rendering_repeats(city: City) -> None:
    poses = at((2.0, 20.0, 2.2), (2.1, 23.0, 2.2), (2.0, 26.0, 2.2), heading=0.0)
    batch = render(city, poses, SMALL, NOON)
    assert batch.shape == (3, 120, 160, 3)
    assert batch.dtype == torch.uint8
    single = [render(city, poses[k : k + 1], SMALL, NOON)[0] for k in range(3)]
    assert torch.equal(batch, torch.stack(single))


def test_the_seed_makes_the_city(city: City) -> None:
    poses = at((2.0, 20.0, 2.2), heading=0.0)
    again, other = build_city(seed=3), build_city(seed=4)
    picture = render(city, poses, SMALL, NOON)
    assert torch.equal(picture, render(again, poses, SMALL, NOON))
    assert not torch.equal(picture, render(other, poses, SMALL, NOON))


def test_identical_houses_look_identical_and_their_neighbours_do_not(city: City) -> None:
    # Seen from the same place before each front, in even light: no shadows, no haze.
    overcast = Conditions(sun_elevation_deg=-1.0, haze_distance_m=1e9, brightness=1.5)
    fronts = city.identical
    assert len(fronts) >= 3
    camera = Camera(width=160, height=120, fx=300.0, fy=300.0, cx=80.0, cy=60.0)
    middle = fronts[:, :2].mean(1)
    width = float(np.linalg.norm(fronts[0, 1] - fronts[0, 0]))
    assert camera.width / camera.fx * 14.0 < width
    centres = middle + np.array([0.0, -14.0, 8.5])  # above the lamps, before fronts that face south
    poses = Poses.looking(centres, np.zeros(3), np.full(3, 0.0), np.zeros(3))
    pictures = render(city, poses, camera, overcast).int()
    # Rounding of float32 coordinates aside, which moves a texture by micrometres.
    assert (pictures[1] - pictures[0]).abs().max() <= 3
    assert (pictures[2] - pictures[0]).abs().max() <= 3
    between = 0.5 * (middle[:1] + middle[1:2]) + np.array([0.0, -14.0, 8.5])
    elsewhere = Poses.looking(between, np.zeros(1), np.zeros(1), np.zeros(1))
    other = render(city, elsewhere, camera, overcast)[0].int()
    assert (other - pictures[0]).abs().double().mean() > 10


def test_the_hour_changes_light_and_shadows_and_night_is_dark(city: City) -> None:
    poses = at((2.0, 20.0, 2.2), heading=0.0)
    morning, noon, evening, night = (
        render(city, poses, SMALL, Conditions.at(hour))[0].double() for hour in (10, 12, 14, 1)
    )
    assert (morning - evening).abs().mean() > 6
    assert night.mean() < 0.4 * noon.mean()
    # In the morning the sun stands in the east and lights what faces it: the west side, left.
    left, right = slice(0, 60), slice(100, 160)
    facade = slice(20, 60)
    lit = morning[facade, left].mean() / morning[facade, right].mean()
    assert lit > evening[facade, left].mean() / evening[facade, right].mean()


def test_the_sun_goes_from_east_over_south_to_west() -> None:
    morning, noon, evening = (Conditions.at(hour) for hour in (7.0, 12.0, 17.0))
    assert morning.sun[0] > 0.5
    assert evening.sun[0] < -0.5
    # At noon: due south, 90 - 48.2 + 20 degrees high.
    assert abs(noon.sun_azimuth_deg - 180.0) < 1e-6
    assert abs(noon.sun_elevation_deg - 61.8) < 1e-6


def test_brightness_scales_the_picture(city: City) -> None:
    poses = at((2.0, 20.0, 2.2), heading=0.0)
    dark, usual = (
        render(city, poses, SMALL, Conditions.at(12.0, brightness=value)).double().mean()
        for value in (0.25, 1.0)
    )
    assert 0.45 < dark / usual < 0.6  # gamma 2: a quarter of the light, half the grey level


def test_a_drive_closes_its_loop_smoothly() -> None:
    for clockwise in (True, False):
        route = drive((0, 0), 120, np.random.default_rng(0), clockwise=clockwise)
        centre = route.poses.centre
        steps = np.linalg.norm(np.diff(centre, axis=0), axis=1)
        assert steps.max() < 4.3
        assert steps.min() > 1.3
        assert 2.4 < np.median(steps) < 4.1
        turns = (np.diff(route.poses.headings()) + 180) % 360 - 180
        assert np.abs(turns).max() < 30
        # The last photographs are taken where the first ones were, looking the same way.
        gap = np.linalg.norm(centre[:20, None] - centre[None, -8:], axis=-1)
        assert gap.min(axis=0).max() < 3.0
