"""Which tiles make one map: rows and rings of tiles of a street whose every pose is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.mapping import test_tile_merge as made
from tests.mapping.test_tile_merge import ORIGIN, disguise, model_of, name_of
from vladmap.features.colmap import pycolmap
from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.mapping.georegister import Similarity, centres_and_rotations
from vladmap.mapping.rotations import rotation_matrix, turns_deg
from vladmap.mapping.tile_alignment import Anchors, Meetings, Turns, align
from vladmap.mapping.tile_arrays import between_frames
from vladmap.mapping.tile_merge import Merged, merge_tiles
from vladmap.mapping.tile_model import TileModel

AROUND, RADIUS = 48, 40.0


def circle() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `street` returns, of a street that closes: houses 8 m to either side."""
    heading = np.arange(AROUND) / AROUND * 2 * np.pi
    flat = 0 * heading
    centres = np.stack([RADIUS * np.sin(heading), -RADIUS * np.cos(heading), flat + 2], axis=1)
    forward = np.stack([np.cos(heading), np.sin(heading), flat], axis=1)
    down = np.tile([0.0, 0.0, -1.0], (AROUND, 1))
    rotations = np.stack([np.cross(down, forward), down, forward], axis=2)
    rng = np.random.default_rng(6)
    angle = rng.uniform(0, 2 * np.pi, 3000)
    radius = rng.choice([RADIUS - 8, RADIUS + 8], 3000)
    height = rng.uniform(0, 8, 3000)
    return centres, rotations, np.stack(
        [radius * np.sin(angle), -radius * np.cos(angle), height], axis=1
    )  # fmt: skip


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The street of test_tile_merge is a circle; the rows of IMAGES with half a metre of noise."""
    street = circle()
    monkeypatch.setattr(made, "street", lambda: street)
    monkeypatch.setattr(made, "IMAGES", AROUND)
    return made.rows()


def part(name: str, first: int, count: int, georegistered: bool = True) -> TileModel:
    numbers = sorted(number % AROUND for number in range(first, first + count))
    return TileModel(name, model_of(numbers), ORIGIN, georegistered)


def four_around() -> list[TileModel]:
    """Sixteen images a tile, four of which it shares with the tile before and the one after."""
    return [part(name, 12 * number, 16) for number, name in enumerate("abcd")]


def shape_error(model: pycolmap.Reconstruction) -> float:
    names, centres, _ = centres_and_rotations(model)
    truth = circle()[0][[int(name[:3]) for name in names]]
    similarity = pycolmap.estimate_sim3d(centres, truth)
    assert similarity is not None
    return float(np.linalg.norm(similarity * centres - truth, axis=1).max())


def tear(tile: TileModel, first: int, by: Sequence[float]) -> None:
    """Carry the images of a tile from the first one on, and the points that they alone see."""
    model, shift = tile.model, np.array(by)
    after = {
        number for number in model.reg_image_ids() if int(model.image(number).name[:3]) >= first
    }
    for number in sorted(model.points3D):
        point = model.point3D(number)
        seen_by = {element.image_id for element in point.track.elements}
        if seen_by <= after:
            point.xyz = point.xyz + shift
        elif seen_by & after:
            model.delete_point3D(number)
    for number in sorted(after):
        frame = model.image(number).frame
        pose = frame.rig_from_world
        moved = pose.translation - pose.rotation.matrix() @ shift
        frame.rig_from_world = pycolmap.Rigid3d(pose.rotation, moved)


def verdicts(merged: Merged) -> dict[str, bool]:
    return {each["a"] + each["b"]: each["merged"] for each in merged.decisions}


@pytest.mark.medium
def test_a_ring_of_tiles_in_frames_of_their_own_closes(ring: dict[str, dict[str, Any]]) -> None:
    tiles = four_around()
    for tile in tiles[1:]:
        disguise(tile.model)
        tile.georegistered = False
    merged = merge_tiles(tiles, ring)
    [model] = merged.models
    assert (model.model.num_reg_images(), model.parts) == (AROUND, 4)
    assert set(verdicts(merged).values()) == {True}
    assert len(merged.decisions) == 4, "a and c, b and d share nothing"
    assert shape_error(model.model) < 0.01
    joining = merged.reports[0]["joining"]
    assert (joining["tiles"], joining["alignment_unknowns"]) == (4, 28)


@pytest.mark.medium
def test_a_torn_tile_in_a_ring_is_left_alone_and_the_others_stay_one_map(
    ring: dict[str, dict[str, Any]],
) -> None:
    """It agrees with both of its neighbours, each alone; the ring does not close by 6 m."""
    tiles = four_around()
    tear(tiles[2], 32, [0.0, 6.0, 0.0])
    merged = merge_tiles(tiles, ring)
    whole, *torn = merged.models
    assert (whole.model.num_reg_images(), whole.parts) == (40, 3)
    assert [each.name for each in torn] == ["c", "c-1"], "no point joins its halves"
    assert shape_error(whole.model) < 0.01
    assert verdicts(merged) == {"ab": True, "ad": True, "bc": False, "cd": False}
    reasons = [each["reason"] for each in merged.decisions if not each["merged"]]
    for reason in reasons:
        assert "images of c lie over 1.00 m or 3 degrees from where other tiles have them" in reason


@pytest.mark.medium
@pytest.mark.parametrize("wrong", ["mirrored", "cameras twice as far"])
def test_a_tile_of_a_wrong_shape_is_refused_by_its_neighbours_with_figures(
    ring: dict[str, dict[str, Any]], wrong: str
) -> None:
    tiles = four_around()
    model = tiles[1].model
    middle = centres_and_rotations(model)[1].mean(axis=0)
    for number in sorted(model.points3D) if wrong == "mirrored" else ():
        point = model.point3D(number)
        point.xyz = point.xyz * [-1.0, 1.0, 1.0]
    for number in sorted(model.reg_image_ids()):
        frame = model.image(number).frame
        turn = frame.rig_from_world.rotation
        centre = frame.rig_from_world.tgt_origin_in_src()
        centre = centre * [-1.0, 1.0, 1.0] if wrong == "mirrored" else 2 * centre - middle
        frame.rig_from_world = pycolmap.Rigid3d(turn, -(turn.matrix() @ centre))
    merged = merge_tiles(tiles, ring)
    assert verdicts(merged) == {"ab": False, "bc": False, "cd": True, "ad": True}
    for decision in merged.decisions:
        if not decision["merged"]:
            assert "4 of 4 common images differ: median" in decision["reason"]
            assert decision["residual_median_m"] > 1.0 or decision["turn_median_deg"] > 3.0
    assert merged.models[0].model.num_reg_images() == 40
    assert shape_error(merged.models[0].model) < 0.01


@pytest.mark.medium
def test_tiles_that_share_two_images_are_not_compared(ring: dict[str, dict[str, Any]]) -> None:
    tiles = [part("a", 0, 14), part("b", 12, 14), part("c", 22, 14)]
    merged = merge_tiles(tiles, ring)
    assert verdicts(merged) == {"bc": True}
    assert [each.model.num_reg_images() for each in merged.models] == [24, 14]


@pytest.mark.medium
def test_the_map_has_the_same_bytes_whatever_the_order_of_tiles(
    ring: dict[str, dict[str, Any]], tmp_path: Any
) -> None:
    written = []
    for number, order in enumerate(([0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 1, 0])):
        tiles = four_around()
        merged = merge_tiles([tiles[row] for row in order], ring)
        folder = tmp_path / str(number)
        folder.mkdir()
        merged.models[0].model.write_binary(folder)
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        written.append((files, merged.decisions, merged.reports))
    assert written[0] == written[1] == written[2]


@pytest.mark.medium
def test_a_single_tile_is_passed_through_to_the_last_byte(
    ring: dict[str, dict[str, Any]], tmp_path: Any
) -> None:
    written = []
    for name in ("before", "after"):
        tile = part("one", 0, 16)
        model = tile.model if name == "before" else merge_tiles([tile], ring).models[0].model
        model.update_point_3d_errors()
        (tmp_path / name).mkdir()
        model.write_binary(tmp_path / name)
        written.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert written[0] == written[1]


@pytest.mark.medium
def test_a_tile_that_gps_contradicts_among_many_is_left_alone(
    ring: dict[str, dict[str, Any]],
) -> None:
    """What it alone holds is 30 m off: with each neighbour 8 of 28 images, with all 8 of 48."""
    for number in range(28, 36):
        place = circle()[0][number] + [0.0, 30.0, 0.0]
        latitude, longitude, altitude = enu_to_geodetic(place[None], ORIGIN)[0].tolist()
        ring[name_of(number)] |= {
            "latitude": latitude, "longitude": longitude, "altitude": altitude,
        }  # fmt: skip
    merged = merge_tiles(four_around(), ring)
    assert verdicts(merged) == {"ab": True, "ad": True, "bc": False, "cd": False}
    assert merged.models[0].model.num_reg_images() == 40
    for decision in merged.decisions:
        if not decision["merged"]:
            assert "GPS and drives would contradict" in decision["reason"]


def similarities(count: int) -> list[Similarity]:
    rng = np.random.default_rng(3)
    return [
        Similarity(
            float(rng.uniform(0.5, 2.0)), rotation_matrix(rng.normal(size=3)), rng.normal(size=3)
        )
        for _ in range(count)
    ]


def links(
    truth: Sequence[Similarity], edges: np.ndarray, off: dict[int, np.ndarray]
) -> tuple[Meetings, Turns]:
    """Twenty places and as many directions that two tiles of each edge share, exactly.

    `off` adds a shift in the common frame to what the second tile of an edge says.
    """
    rng = np.random.default_rng(4)
    a, b = np.repeat(edges, 20, axis=0).T
    place = rng.uniform(-20, 20, (len(a), 3))
    turned = np.array([rotation_matrix(each) for each in rng.normal(size=(len(a), 3))])
    back = [each.inverse() for each in truth]
    moved = place + np.array([off.get(number // 20, np.zeros(3)) for number in range(len(a))])
    at_a = np.array([back[tile].apply(each[None])[0] for tile, each in zip(a, place, strict=True)])
    at_b = np.array([back[tile].apply(each[None])[0] for tile, each in zip(b, moved, strict=True)])
    turn_a, turn_b = (
        np.array([back[tile].rotation @ each for tile, each in zip(end, turned, strict=True)])
        for end in (a, b)
    )
    sigma = np.full(len(a), 0.1)
    return Meetings(a, b, at_a, at_b, sigma), Turns(a, b, turn_a, turn_b, 0.01 * sigma / 0.1)


def held(truth: Sequence[Similarity], tiles: Sequence[int], sigma: float) -> Anchors:
    at = 20.0 * np.concatenate([-np.eye(3), np.eye(3)])
    rows = np.repeat(np.array(tiles, np.int64), len(at))
    target = np.concatenate([truth[tile].apply(at) for tile in tiles])
    return Anchors(rows, np.tile(at, (len(tiles), 1)), target, np.full((len(rows), 3), sigma))


def test_an_alignment_finds_the_similarities_that_exact_links_were_made_with() -> None:
    truth = similarities(5)
    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [0, 4]])
    start = [
        Similarity(
            1.1 * each.scale,
            rotation_matrix(np.full(3, 0.05)) @ each.rotation,
            each.translation + 0.5,
        )
        for each in truth
    ]
    found = align(start, np.zeros((5, 3)), *links(truth, edges, {}), held(truth, [0], 1e-3))
    for each, true in zip(found, truth, strict=True):
        assert each.scale == pytest.approx(true.scale, rel=1e-6)
        np.testing.assert_allclose(each.rotation, true.rotation, atol=1e-6)
        np.testing.assert_allclose(each.translation, true.translation, atol=1e-5)


def test_what_a_ring_fails_to_close_by_is_shared_by_its_seams() -> None:
    """0.4 m in four seams: 0.1 m each, and no turn."""
    truth = [Similarity(1.0, np.eye(3), np.zeros(3))] * 4
    edges = np.array([[0, 1], [1, 2], [2, 3], [0, 3]])
    off = {3: np.array([0.0, 0.4, 0.0])}
    meetings, turns = links(truth, edges, off)
    found = align(truth, np.zeros((4, 3)), meetings, turns, held(truth, [0], 1e-3))
    apart = [
        found[b].apply(at_b[None])[0] - found[a].apply(at_a[None])[0]
        for a, b, at_a, at_b in zip(
            meetings.a, meetings.b, meetings.at_a, meetings.at_b, strict=True
        )
    ]
    np.testing.assert_allclose(np.linalg.norm(apart, axis=1), 0.1, atol=0.05)
    by_seam = np.array(apart).reshape(4, 20, 3).mean(axis=1)
    np.testing.assert_allclose(np.abs(by_seam), np.tile([0.0, 0.1, 0.0], (4, 1)), atol=0.01)
    assert turns_deg(found[2].rotation[None], np.eye(3)[None])[0] < 0.2


def test_weak_anchors_do_not_shrink_the_map() -> None:
    """All places would be nearer to each other if all tiles shrank: nothing is gained by it."""
    truth = [Similarity(1.0, np.eye(3), np.zeros(3))] * 3
    off = {0: np.array([0.3, 0.0, 0.0]), 1: np.array([0.0, -0.3, 0.2])}
    meetings, turns = links(truth, np.array([[0, 1], [1, 2], [0, 2]]), off)
    found = align(truth, np.zeros((3, 3)), meetings, turns, held(truth, [0, 1, 2], 25.0))
    assert np.prod([each.scale for each in found]) == pytest.approx(1.0, abs=0.01)


def test_a_place_is_the_same_in_the_frames_of_two_origins() -> None:
    far = (48.2, 16.3, 150.0)
    places = np.array([[10.0, -20.0, 3.0], [0.0, 0.0, 0.0]])
    moved = between_frames(ORIGIN, far).apply(places)
    np.testing.assert_allclose(
        enu_to_geodetic(moved, far), enu_to_geodetic(places, ORIGIN), atol=1e-9
    )
