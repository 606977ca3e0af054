"""A tile that has grown goes on from its model, or is mapped from nothing and says why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.mapping.scene import images_of, views_of
from tests.mapping.test_reconstruct import reconstructed
from tests.mapping.test_tile_merge import ORIGIN, name_of, street
from vladmap.features.colmap import pycolmap
from vladmap.geodesy.wgs84 import enu_to_geodetic, geodetic_to_enu
from vladmap.mapping import reconstruct
from vladmap.mapping.georegister import centres_and_rotations
from vladmap.mapping.tile_continuing import Before

pytestmark = pytest.mark.medium

FEW, ALL = range(8), range(10)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tile of the first photographs."""
    folder = tmp_path_factory.mktemp("mapped")
    reconstructed(folder, FEW)
    return folder


def as_it_was(mapped: Path) -> Before:
    report = json.loads((mapped / "tile.json").read_text())
    return Before(report, mapped / "sparse" / "0")


def no_mapper(*_: object, **__: object) -> None:
    raise AssertionError("mapped from nothing")


def maps_nothing(work: Path, *_: object) -> dict[str, object]:
    """In place of the mappers, which take long: what they are given is another test's."""
    (work / "models").mkdir()
    report: dict[str, object] = {"models": [{"model": 0}], "models_left_out": []}
    return {**report, "dropped": {}, "registered": []}


def test_a_tile_that_has_grown_is_not_mapped_from_nothing(
    mapped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruct, "map_tile", no_mapper)
    result = reconstructed(tmp_path, ALL, before=as_it_was(mapped))
    assert result.failure is None
    grown = result.report["grown"]
    assert (grown["new"], grown["registered"], grown["mapped_at_once"]) == (2, 2, 8)
    assert result.report["unregistered"] == {}
    (report,) = result.report["models"]
    assert (report["images"], report["georegistered"]) == (10, True)
    model = pycolmap.Reconstruction(str(tmp_path / "sparse" / "0"))
    names, centres, _ = centres_and_rotations(model)
    assert names == [name_of(number) for number in ALL]
    there = geodetic_to_enu(enu_to_geodetic(centres, report["origin"]), ORIGIN)
    assert np.linalg.norm(there - street()[0][: len(ALL)], axis=1).max() < 1.0


def test_what_was_continued_can_be_continued_again_and_knows_what_was_mapped_at_once(
    mapped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruct, "map_tile", maps_nothing)
    first, second = tmp_path / "first", tmp_path / "second"
    reconstructed(first, range(9), before=as_it_was(mapped))
    result = reconstructed(second, ALL, before=as_it_was(first))
    assert (result.report["grown"]["new"], result.report["grown"]["mapped_at_once"]) == (1, 8)
    again = reconstructed(tmp_path / "third", range(13), before=as_it_was(second))
    assert again.report["grown"] == {"from_nothing": "of its 13 images 8 were mapped at once"}
    assert again.report["models"] == [{"model": 0}]


def test_a_model_that_cannot_be_continued_is_mapped_from_nothing_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruct, "map_tile", maps_nothing)
    lost = Before({}, None, "its model of before cannot be read: gone")
    result = reconstructed(tmp_path, ALL, before=lost)
    assert result.report["grown"] == {"from_nothing": "its model of before cannot be read: gone"}
    assert result.report["models"] == [{"model": 0}]


def test_photographs_that_the_map_refuses_have_the_tile_mapped_from_nothing(
    mapped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the points of the map their matches are chance."""
    monkeypatch.setattr(reconstruct, "map_tile", maps_nothing)
    rng = np.random.default_rng(0)
    views = []
    for view in views_of(ALL):
        new = [int(each[2:]) >= len(FEW) for each in (view.image_id_a, view.image_id_b)]
        if any(new) and not all(new):
            matches = view.inliers.copy()
            matches[:, 1] = rng.permutation(matches[:, 1])
            view = view.__class__(**{**vars(view), "inliers": matches, "matches": matches})
        views.append(view)
    result = reconstructed(
        tmp_path, ALL, images=images_of(ALL), views=views, before=as_it_was(mapped)
    )
    assert result.report["grown"] == {"from_nothing": "only 0 of 2 new images could be registered"}
