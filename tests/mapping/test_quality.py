"""The marks on photographs that must not be used."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.mapping.test_tile_merge import IMAGES, disguise, model_of, name_of, rows, tile
from tests.mapping.test_uncertainty import move, noisy
from vladmap.features.colmap import pycolmap
from vladmap.mapping.point_agreement import VIEW_COLUMNS, PairPoints
from vladmap.mapping.quality import (
    DOUBTFUL_M,
    PoseQuality,
    figures,
    qualities,
    tile_figures,
    torn_images,
)
from vladmap.mapping.tile_model import TileModel
from vladmap.schemas import tables
from vladmap.schemas.rejects import PoseDoubt

ROWS = rows()


def pairs(held: list[tuple[int, int]], torn: list[tuple[int, int]]) -> PairPoints:
    ends = np.array([*held, *torn], np.int64).reshape(-1, 2)
    good = np.arange(len(ends)) < len(held)
    return PairPoints(
        ends[:, 0],
        ends[:, 1],
        np.where(good, 30, 0),
        np.where(good, 0, 30),
        np.full(len(ends), 5.0),
        np.full(len(ends), 9.0),
    )


def test_a_piece_that_only_torn_pairs_join_to_the_largest_is_torn_and_not_the_largest() -> None:
    found = torn_images(pairs([(0, 1), (1, 2), (3, 4)], [(2, 3)]), 6)
    # Image 5 has no pair at all: nothing contradicts it.
    assert found.tolist() == [False, False, False, True, True, False]


def test_an_image_most_of_whose_pairs_are_torn_is_torn() -> None:
    held = [(0, 1), (1, 2), (2, 3), (0, 3), (3, 4)]
    assert torn_images(pairs(held, [(4, 1), (4, 2)]), 5).tolist() == [False] * 4 + [True]


def test_a_true_map_has_no_doubts() -> None:
    held = pairs([(0, 1), (1, 2)], [])
    assert not torn_images(held, 3).any()
    assert torn_images(pairs([], []), 0).tolist() == []


def neighbours(model: pycolmap.Reconstruction) -> pa.Table:
    """All matches of photographs next to each other, by the points of the model, as trusted."""
    keypoint: dict[int, dict[int, int]] = {}
    for point_id, point in sorted(model.points3D.items()):
        for element in point.track.elements:
            keypoint.setdefault(element.image_id, {})[point_id] = element.point2D_idx
    found = []
    for a in range(1, IMAGES):
        common = sorted(keypoint[a].keys() & keypoint[a + 1].keys())
        matches = [[keypoint[a][point], keypoint[a + 1][point]] for point in common]
        found.append((f"id{a - 1:03d}", f"id{a:03d}", matches, "kept"))
    schema = pa.schema([tables.TWO_VIEWS.field(name) for name in VIEW_COLUMNS])
    return pa.Table.from_pylist(
        [dict(zip(VIEW_COLUMNS, row, strict=True)) for row in found], schema=schema
    )


def test_a_sound_street_has_small_errors_and_no_doubt() -> None:
    street = TileModel("street", noisy(range(IMAGES)), (48.0, 16.0, 100.0), True)
    found = qualities(street, ROWS, two_views=[neighbours(street.model)])
    assert set(found) == set(ROWS)
    assert all(each.doubt is None for each in found.values())
    errors = [each.error_m for each in found.values()]
    assert all(error is not None and 0 < error < DOUBTFUL_M for error in errors)


def test_a_photograph_put_three_metres_aside_is_marked_and_hardly_another() -> None:
    street = TileModel("street", noisy(range(IMAGES)), (48.0, 16.0, 100.0), True)
    table = neighbours(street.model)
    move(street.model, 12, np.array([3.0, 0.0, 0.0]))
    found = qualities(street, ROWS, two_views=[table])
    assert found[name_of(11)].doubt is PoseDoubt.LOOSE
    assert sum(each.doubt is not None for each in found.values()) <= 3


def test_a_street_torn_in_two_is_marked_on_its_smaller_side() -> None:
    """The last eight photographs see points of their own, 4 m from those of the others."""
    street = TileModel("street", noisy(range(IMAGES)), (48.0, 16.0, 100.0), True)
    table, aside, own = neighbours(street.model), np.array([0.0, 0.0, 4.0]), range(17, 25)
    for point_id, point in list(street.model.points3D.items()):
        theirs = [(e.image_id, e.point2D_idx) for e in point.track.elements if e.image_id in own]
        place = point.xyz + aside
        for each in theirs:
            if street.model.exists_point3D(point_id):
                street.model.delete_observation(*each)
        if len(theirs) >= 2:
            track = pycolmap.Track()
            track.add_elements([pycolmap.TrackElement(*each) for each in theirs])
            street.model.add_point3D(place, track, np.zeros(3, np.uint8))
    for number in own:
        move(street.model, number, aside)
    found = qualities(street, ROWS, two_views=[table])
    marked = {name for name, each in found.items() if each.doubt is PoseDoubt.TORN}
    assert marked == {name_of(number) for number in range(16, 24)}


def test_what_lies_beyond_a_jump_of_its_drive_is_marked() -> None:
    """The whole end of the drive was taken for another street, 40 m away, and hangs together."""
    street = TileModel("street", noisy(range(IMAGES)), (48.0, 16.0, 100.0), True)
    drive = {
        name: {**row, "sequence_id": "one", "sequence_index": number}
        for number, (name, row) in enumerate(ROWS.items())
    }
    for number in range(19, 25):
        move(street.model, number, np.array([0.0, 40.0, 0.0]))
    found = qualities(street, drive)
    marked = {name for name, each in found.items() if each.doubt is PoseDoubt.JUMP}
    assert marked == {name_of(number) for number in range(18, 24)}


def test_a_model_without_scale_has_no_errors_in_metres() -> None:
    nowhere = tile("nowhere", range(IMAGES), georegistered=False)
    disguise(nowhere.model)
    assert set(qualities(nowhere, ROWS).values()) == {PoseQuality(None, None)}


def test_a_photograph_that_nothing_holds_is_loose_and_its_error_unknown() -> None:
    model = model_of(range(4))
    for number in list(model.points3D):
        model.delete_point3D(number)
    found = qualities(TileModel("bare", model, (48.0, 16.0, 100.0), True), ROWS)
    assert set(found.values()) == {PoseQuality(None, PoseDoubt.LOOSE)}


def test_figures_count_doubts_and_have_median_and_largest_error() -> None:
    found = [
        PoseQuality(0.1, None), PoseQuality(0.2, PoseDoubt.TORN), PoseQuality(0.9, PoseDoubt.LOOSE),
        PoseQuality(None, PoseDoubt.LOOSE),
    ]  # fmt: skip
    assert figures(found) == {
        "predicted_error_median_m": 0.2,
        "predicted_error_max_m": 0.9,
        "doubtful": {"loose": 2, "torn": 1},
    }
    assert figures([]) == {"doubtful": {}}


def test_a_tile_has_the_figures_of_its_photographs_in_the_map() -> None:
    of_map = [{name_of(0): PoseQuality(0.1, None), name_of(1): PoseQuality(0.3, None)}]
    found = tile_figures([tile("left/0", range(2)), tile("right/0", range(1, 4))], of_map)
    assert found["left/0"]["predicted_error_median_m"] == pytest.approx(0.2)
    assert found["right/0"]["predicted_error_max_m"] == 0.3
