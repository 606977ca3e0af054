"""Worlds on disk: their names, their bytes, and what a condition does to a street."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import MadeOnce
from vladmap.photos.places import read_places, read_split, within
from vladmap.schemas.rejects import UserError
from vladmap.simulation.names import CONDITIONS
from vladmap.simulation.render import radiance
from vladmap.simulation.things import visit
from vladmap.simulation.weather import draw_weather
from vladmap.simulation.worlds import build_world, name_of, origin_of, plan_visits, write_worlds

pytestmark = pytest.mark.medium

SIZE = (64, 48)
QUERIES = ("day", "night")


def write(out: Path, seeds: tuple[int, ...] = (2000, 2001), **settings: object) -> Path:
    chosen: dict[str, object] = {"split": "test", "places": 6, "query_places": 3, "workers": 1}
    chosen |= {"queries": QUERIES, "size": SIZE} | settings
    write_worlds(out, seeds, **chosen)  # type: ignore[arg-type]
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def worlds(made_once: MadeOnce) -> Path:
    return made_once("worlds", write)


def test_the_reader_of_evaluations_finds_every_photograph_and_its_condition(worlds: Path) -> None:
    database, queries = read_split(worlds, "test")
    assert len(database) == 2 * 6
    assert sorted(queries.conditions) == ["day"] * 6 + ["night"] * 6
    assert Image.open(database.paths[0]).size == SIZE


def test_every_query_has_a_photograph_of_its_place_and_none_of_another_world(worlds: Path) -> None:
    database, queries = read_split(worlds, "test")
    found = within(queries, database, 25.0)
    assert all(len(rows) for rows in found)
    world = [path.name.split("@w")[1][:4] for path in database.paths]
    for path, rows in zip(queries.paths, found, strict=True):
        assert {world[row] for row in rows} == {path.name.split("@w")[1][:4]}


def test_names_say_the_true_position_to_a_centimetre(worlds: Path) -> None:
    database, _ = read_split(worlds, "test")
    visits = plan_visits(2000, 6, ("day",), QUERIES, 3, SIZE)
    flat = next(iter(visits)).poses.centre[:, :2]
    own = [n for n, path in enumerate(database.paths) if "@w2000-" in path.name]
    order = np.argsort([database.paths[n].name.split("@")[7] for n in own])
    measured = database.positions[np.array(own)[order]]
    apart = np.linalg.norm(flat[:, None] - flat, axis=2)
    # Distances in UTM's plane, near its central meridian, and on earth agree to 1 in 2,000.
    assert np.linalg.norm(measured[:, None] - measured, axis=2) == pytest.approx(
        apart, rel=1e-3, abs=0.01
    )


def test_worlds_lie_kilometres_from_each_other() -> None:
    earth = 111_000.0
    places = np.array([origin_of(seed)[:2] for seed in (*range(150), 1000, 1001, 2000, 2001)])
    north = (places[:, None, 0] - places[None, :, 0]) * earth
    east = (places[:, None, 1] - places[None, :, 1]) * earth * np.cos(np.radians(50.0))
    apart = np.hypot(north, east) + 1e9 * np.eye(len(places))
    assert apart.min() > 2_000


def test_a_name_has_the_fifteen_fields_of_the_layout() -> None:
    name = name_of(7, 3, np.array([1.0, 2.0, 1.5]), 90.0, "snow", "20250115")
    fields = name.split("@")
    assert len(fields) == 16
    assert (fields[0], fields[9], fields[14], fields[15]) == ("", "90.0", "snow", ".jpg")
    assert fields[7] == "w0007-p00003"


def test_the_same_arguments_give_the_same_bytes_and_a_second_run_does_nothing(
    worlds: Path, tmp_path: Path
) -> None:
    again = write(tmp_path / "again")
    assert contents(again) == contents(worlds)
    ages = {path: path.stat().st_mtime_ns for path in again.rglob("*.jpg")}
    write(again)
    assert {path: path.stat().st_mtime_ns for path in again.rglob("*.jpg")} == ages


def test_a_world_cut_off_in_the_middle_is_made_anew(worlds: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(worlds, cut)
    (cut / "worlds" / "test-w2000.json").unlink()
    next(iter(cut.rglob("*.jpg"))).write_bytes(b"half")
    write(cut)
    assert contents(cut) == contents(worlds)


def test_a_folder_of_other_options_is_refused(worlds: Path, tmp_path: Path) -> None:
    made = write(tmp_path / "made", seeds=(2000,), queries=("day",))
    with pytest.raises(UserError, match="made with other options"):
        write(made, seeds=(2000,))
    assert json.loads((made / "worlds" / "test-w2000.json").read_text())["queries"] == ["day"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"queries": ("hail",)}, "no conditions"),
        ({"split": "trial"}, "split must be one of"),
        ({"places": 0}, "1 or more"),
        ({"size": (8, 8)}, "pixels a side"),
        ({"gps_sigma_m": -1.0}, "GPS noise"),
        ({"seeds": (3, 3)}, "each once"),
    ],
)
def test_arguments_out_of_range_are_one_clear_line(
    tmp_path: Path, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        write(tmp_path, **settings)  # type: ignore[arg-type]


class TestConditions:
    """One street on several days."""

    @pytest.fixture(scope="class")
    @classmethod
    def light(cls) -> dict[str, torch.Tensor]:
        city = build_world(11, 6)
        drive = next(iter(plan_visits(11, 6, ("day",), (), 1, SIZE)))
        found = {}
        for condition in ("day", "night", "snow", "fog"):
            weather = draw_weather(condition, np.random.default_rng(5))
            there = visit(city, weather, 0)
            found[condition] = radiance(there, drive.poses, drive.cameras, weather.light)
        return found

    def test_by_night_the_sky_is_dark_and_lamps_are_brighter_than_anything_by_day(
        self, light: dict[str, torch.Tensor]
    ) -> None:
        sky = {name: float(pictures[:, :, :8].median()) for name, pictures in light.items()}
        assert sky["night"] < 0.3 * sky["day"]
        assert float(light["night"].max()) > float(light["day"].max())

    def test_snow_brightens_the_ground_more_than_the_walls(
        self, light: dict[str, torch.Tensor]
    ) -> None:
        # The lowest quarter of a picture is road, what lies above the horizon walls and sky.
        share = {
            name: float(light[name][:, :, 36:].mean()) / float(light[name].mean())
            for name in ("day", "snow")
        }
        assert share["snow"] > 1.15 * share["day"]

    def test_fog_takes_the_contrast(self, light: dict[str, torch.Tensor]) -> None:
        def contrast(name: str) -> float:
            return float(light[name].std() / light[name].mean())

        assert contrast("fog") < 0.7 * contrast("day")


def test_what_the_citys_seed_makes_stays_where_it_is_from_visit_to_visit() -> None:
    city = build_world(12, 6)
    visits = [
        visit(city, draw_weather(name, np.random.default_rng(1)), number)
        for number, name in enumerate(CONDITIONS)
    ]
    for there in visits:
        assert len(there.quads) > len(city.quads)
        assert torch.equal(there.quads.corner[: len(city.quads)], city.quads.corner)
        assert torch.equal(there.quads.extent[: len(city.quads)], city.quads.extent)
    assert len({len(there.quads) for there in visits}) > 5


def test_aligned_every_place_is_seen_from_one_camera_under_all_conditions(tmp_path: Path) -> None:
    conditions = ("day", "overcast", "snow")
    out = write(tmp_path, (2000,), conditions=conditions, queries=(), aligned=True, every=2)
    database = read_places(out / "images/test/database")
    assert not list((out / "images/test/queries").iterdir())
    by_place: dict[str, dict[str, Path]] = {}
    for path, condition in zip(database.paths, database.conditions, strict=True):
        by_place.setdefault(path.name.split("@")[7], {})[condition] = path
    # Each second of six places.
    assert sorted(by_place) == [f"w2000-p{n:05d}" for n in range(3)]
    assert all(set(seen) == set(conditions) for seen in by_place.values())

    def edges(path: Path) -> np.ndarray:
        grey = np.asarray(Image.open(path).convert("L"), float)
        return np.hypot(*np.gradient(grey)).ravel()

    # Outlines stay where they are: a place correlates with itself and not with the others.
    day, dull = (
        [edges(by_place[place][condition]) for place in sorted(by_place)]
        for condition in ("day", "overcast")
    )
    alike = np.corrcoef(day, dull)[:3, 3:]
    assert (alike.argmax(axis=1) == np.arange(3)).all()


def test_only_whole_places_can_be_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be kept"):
        write(tmp_path, (2000,), every=7)
