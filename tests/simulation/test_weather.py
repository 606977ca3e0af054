"""What the weather, the season and the hour do to a picture, and what they leave alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vladmap.simulation.camera import Camera, Poses
from vladmap.simulation.character import Character, draw_character
from vladmap.simulation.city import City, build_city
from vladmap.simulation.conditions import Conditions
from vladmap.simulation.names import CONDITIONS
from vladmap.simulation.render import depth_map, radiance
from vladmap.simulation.things import visit
from vladmap.simulation.trees import COLUMN, CONIFER, ROUND, Season, grow
from vladmap.simulation.views import View
from vladmap.simulation.weather import Weather, draw_weather

SMALL = Camera(width=160, height=120, fx=110.0, fy=110.0, cx=80.0, cy=60.0)
NIGHT = Conditions(sun_elevation_deg=-25.0, lamps=1.2)
DULL = Conditions(direct=0.0, grey=1.0, cloud_cover=1.0)


def street(pitch: float = 6.0) -> Poses:
    places = np.array([[1.5, 20.0, 2.0], [1.5, 30.0, 2.0]])
    return Poses.looking(places, np.zeros(2), np.full(2, pitch), np.zeros(2))


def light(city: City, conditions: Conditions, pitch: float = 6.0) -> torch.Tensor:
    return radiance(city, street(pitch), [SMALL] * 2, conditions)


def turned_up(city: City) -> torch.Tensor:
    """(2, H, W) how far up the surface at each pixel's centre faces; NaN in the sky."""
    maps = []
    for centre, rotation in zip(street().centre, street().rotation, strict=True):
        view = View(city, centre, rotation, SMALL)
        seen = view.seen()
        up = city.quads.normal()[view.index, 2][seen.clamp(min=0)]
        maps.append(up.masked_fill(seen < 0, torch.nan))
    return torch.stack(maps)


def inner(where: torch.Tensor) -> torch.Tensor:
    """(N, H, W) without its outlines, where one pixel mixes several surfaces."""
    return -torch.nn.functional.max_pool2d(-where.float()[:, None], 3, 1, 1)[:, 0] > 0


def test_night_is_darker_than_day_and_lit_windows_are_brighter_than_unlit(city: City) -> None:
    there = visit(city, Weather(NIGHT, lit=0.5, traffic=0.0), 1)
    assert there.lit is not None
    lit = light(there, NIGHT)
    unlit = light(replace(there, lit=torch.zeros_like(there.lit)), NIGHT)
    # The medians: lamps and lit windows are brighter than white.
    assert lit.median() < 0.7 * light(there, Conditions()).median()
    more = (lit - unlit).amax(1)
    assert (more >= -1e-6).all()  # light only adds
    windows = more > 0.05
    assert 0.005 < windows.float().mean() < 0.3
    assert lit.mean(1)[windows].mean() > 3 * unlit.mean(1)[windows].mean()


def test_street_lamps_light_what_is_near_them(city: City) -> None:
    with_lamps = light(city, NIGHT).mean(1)
    without = light(replace(city, lamps=np.zeros((0, 3))), NIGHT).mean(1)
    ground = (turned_up(city) > 0.9) & (depth_map(city, street(), SMALL) < 25.0)
    assert with_lamps[ground].mean() > 3 * without[ground].mean()


def test_snow_whitens_what_faces_up_and_leaves_the_walls(city: City) -> None:
    bare, white = light(city, DULL), light(city, replace(DULL, snow=1.0))
    up = turned_up(city)
    ground, wall = inner(up > 0.9), inner(up.abs() < 0.1)
    assert min(ground.sum(), wall.sum()) > 1000
    assert white.mean(1)[ground].mean() > 2.5 * bare.mean(1)[ground].mean()
    assert torch.equal(white.movedim(1, -1)[wall], bare.movedim(1, -1)[wall])


def test_more_snow_covers_more(city: City) -> None:
    ground = turned_up(city) > 0.9
    levels = [
        float(light(city, replace(DULL, snow=amount)).mean(1)[ground].mean())
        for amount in (0.0, 0.3, 0.6, 1.0)
    ]
    assert levels == sorted(levels)
    assert levels[1] < 0.6 * levels[3]


def test_fog_takes_the_distance_and_leaves_the_foreground(city: City) -> None:
    clear, fog = light(city, DULL), light(city, replace(DULL, haze_distance_m=25.0))
    depth = depth_map(city, street(), SMALL)
    haze = torch.from_numpy(DULL.horizon).float()[:, None]
    far, near = (depth > 90) & depth.isfinite(), depth < 6
    assert (fog.movedim(1, 0)[:, far] - haze).abs().mean() < 0.03
    changed = (fog - clear).abs().mean(1)
    assert changed[near].mean() < 0.4 * (clear.movedim(1, 0)[:, near] - haze).abs().mean()


def test_wet_ground_is_darker_below_and_mirrors_the_sky_far_ahead(city: City) -> None:
    wet = replace(DULL, wet=1.0)
    assert light(city, wet, -70.0).mean() < 0.75 * light(city, DULL, -70.0).mean()
    depth = depth_map(city, street(), SMALL)
    ahead = (turned_up(city) > 0.9) & (depth > 40.0) & (depth < 150.0)
    assert (light(city, wet) - light(city, DULL)).mean(1)[ahead].mean() > 0


def test_an_overcast_day_has_no_shadows_and_a_grey_sky(city: City) -> None:
    picture, above = light(city, DULL)[0], depth_map(city, street(), SMALL).isinf()
    sky = picture[:, inner(above)[0]]
    assert sky.shape[1] > 500
    assert (sky.amax(0) - sky.amin(0)).max() < 1e-3
    east, west = (light(city, replace(DULL, sun_azimuth_deg=way)) for way in (90.0, 270.0))
    assert torch.equal(east, west)


# --- trees -------------------------------------------------------------------------------------


def covered(city: City, season: Season, kind: int, fullness: float = 1.0) -> float:
    """The share of the picture that a tree takes, 12 m before the camera."""
    quads = grow(np.array([[0.0, 12.0, 0.0, 9.0, 2.8, kind, 200]]), 1, season, fullness)
    assert quads is not None
    poses = Poses.looking(np.array([[0.0, 0.0, 2.0]]), np.zeros(1), np.full(1, 14.0), np.zeros(1))
    return float(depth_map(replace(city, quads=quads), poses, SMALL).isfinite().float().mean())


@pytest.mark.parametrize("kind", [ROUND, COLUMN])
def test_bare_trees_cover_less_sky_than_leafy_ones(city: City, kind: int) -> None:
    leafy, thin = covered(city, "leaf", kind), covered(city, "leaf", kind, fullness=0.4)
    bare = covered(city, "bare", kind)
    assert thin < leafy
    assert 0.01 < bare < 0.7 * leafy


def test_conifers_stay_green(city: City) -> None:
    assert covered(city, "bare", CONIFER) == covered(city, "leaf", CONIFER)


def test_leaves_turn_in_autumn() -> None:
    tree = np.array([[0.0, 12.0, 0.0, 9.0, 2.8, ROUND, 200]])
    summer, autumn = grow(tree, 1, "leaf"), grow(tree, 1, "autumn")
    assert summer is not None
    assert autumn is not None
    for quads, greener in ((summer, True), (autumn, False)):
        red, green, _ = quads.tint[-200:].mean(0)
        assert bool(green > red) is greener


# --- seeds -------------------------------------------------------------------------------------


def test_conditions_are_drawn_as_their_names_say() -> None:
    drawn = {
        name: [draw_weather(name, np.random.default_rng(seed)) for seed in range(40)]
        for name in CONDITIONS
    }
    suns = {name: [each.light.sun_elevation_deg for each in days] for name, days in drawn.items()}
    assert max(suns["night"]) < 0 < min(suns["day"])
    assert max(suns["dusk"]) < min(suns["day"])
    assert all(each.light.snow > 0.5 for each in drawn["snow"])
    assert all(each.light.snow == 0 for name in ("day", "night", "fog") for each in drawn[name])
    assert all(each.light.wet > 0.5 for each in drawn["rain"])
    assert all(each.light.haze_distance_m <= 60 for each in drawn["fog"])
    assert {each.season for each in drawn["winter"]} == {"bare"}
    assert {each.season for each in drawn["autumn"]} == {"autumn"}


def test_worlds_differ_in_character() -> None:
    characters = [draw_character(seed) for seed in range(40)]
    assert characters[3] == draw_character(3)
    assert len({each.wall_tints for each in characters}) == 40
    assert {each.yards for each in characters} == {True, False}
    assert {each.roof_slope > 0 for each in characters} == {True, False}
    widths = [each.street_half_width for each in characters]
    assert max(widths) > 2 * min(widths)


def test_chains_have_the_same_shops_in_every_city() -> None:
    character = Character(chains=0.5, window_styles=1, window_variants=1)
    cities = [build_city(seed, character=character) for seed in (1, 2)]
    pairs = cities[0].tile_kinds.chains
    assert pairs == cities[1].tile_kinds.chains
    first, second = (each.tiles.texels.view(each.tiles.layers, -1) for each in cities)
    for tile in np.ravel(pairs):
        assert torch.equal(first[tile], second[tile])
    shops = [shop for shop, _ in pairs]
    assert all(np.isin(each.quads.tiles.numpy(), shops).any() for each in cities)
