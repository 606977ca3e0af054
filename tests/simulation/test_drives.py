"""Drives through worlds: where names say they were, weak labels, the same houses seen again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vladmap.geodesy.wgs84 import ecef_on_ellipsoid, enu_to_geodetic
from vladmap.photos.places import read_places
from vladmap.simulation.render import depth_map
from vladmap.simulation.things import visit
from vladmap.simulation.worlds import build_world, name_of, origin_of, plan_visits, write_worlds

pytestmark = pytest.mark.medium

SMALL = (48, 36)


def write(out: Path, **settings: object) -> None:
    usual: dict[str, object] = {
        "seeds": [2001],
        "split": "test",
        "places": 6,
        "queries": ("day", "night"),
        "query_places": 2,
        "size": SMALL,
        "workers": 1,
    }
    write_worlds(out, **{**usual, **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("worlds")
    write(out)
    return out


def test_without_noise_names_are_the_true_places_to_a_centimetre(world: Path) -> None:
    drives = plan_visits(2001, 6, ["day"], ["day", "night"], 2, SMALL)
    enu = np.concatenate([drive.poses.centre for drive in drives]) * [1, 1, 0]
    latitude, longitude, _ = enu_to_geodetic(enu, origin_of(2001)).T
    true = ecef_on_ellipsoid(latitude, longitude)
    places = read_places(world / "images" / "test")
    order = [int(path.name.split("@")[7].split("-p")[1]) for path in places.paths]
    assert np.linalg.norm(places.positions - true[order], axis=1).max() < 0.01


def test_train_labels_are_as_weak_as_gps(tmp_path: Path) -> None:
    write(tmp_path, split="train", places=60, queries=["day"], size=(16, 16))
    drive = next(plan_visits(2001, 60, ["day"], [], 1, (16, 16)))
    latitude, longitude, _ = enu_to_geodetic(drive.poses.centre * [1, 1, 0], origin_of(2001)).T
    places = read_places(tmp_path / "images" / "train" / "database")
    order = [int(path.name.split("@")[7].split("-p")[1]) for path in places.paths]
    away = np.linalg.norm(places.positions - ecef_on_ellipsoid(latitude, longitude)[order], axis=1)
    # Two axes of 3 m each: a mean of 3 * sqrt(pi / 2) = 3.76 m.
    assert 2.9 < away.mean() < 4.7


def test_a_name_keeps_to_the_zone_of_its_place() -> None:
    seed = next(seed for seed in range(0, 10_000, 100) if origin_of(seed)[1] >= 11.999)
    west, east = (
        name_of(seed, 0, np.array([x, 0.0, 2.0]), 0.0, "day").split("@") for x in (-900.0, 900.0)
    )
    assert {west[3], east[3]} <= {"32", "33"}
    assert float(east[6]) > float(west[6])


def test_both_ways_and_several_streets_are_in_the_database() -> None:
    drive = next(plan_visits(7, 80, ["day"], [], 1, SMALL))
    headings = drive.poses.headings()
    assert len(np.unique(headings // 90)) == 4
    # Within a stretch photographs are some 5 m apart.
    steps = np.linalg.norm(np.diff(drive.poses.centre[:, :2], axis=0), axis=1)
    assert 4.0 < np.median(steps) < 6.0


def test_a_visit_shows_the_same_houses_and_another_street() -> None:
    city = build_world(5, 8)
    first, second = plan_visits(5, 8, ["day"], ["snow"], 2, SMALL)
    days = [visit(city, drive.weather, number) for number, drive in enumerate((first, second))]
    own = len(city.quads)
    assert all(torch.equal(day.quads.corner[:own], city.quads.corner) for day in days)
    assert len(days[0].quads) != len(days[1].quads)
    poses, camera = first.poses[:3], first.cameras[0]
    still = depth_map(city, poses, camera)
    seen = [depth_map(day, poses, camera) for day in days]
    for depth in seen:
        assert (depth <= still * (1 + 1e-5)).all()  # things only come in front
    # Where neither day's things are in the way, both see what the city's seed made.
    both = ((seen[0] / still - 1).abs() < 1e-4) & ((seen[1] / still - 1).abs() < 1e-4)
    assert both[still.isfinite()].float().mean() > 0.4
