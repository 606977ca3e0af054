"""A tile's models: one test for both mappers, and what a tile's time allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.mapping.test_soundness import COUNT, along_drives, move, pairs_of
from tests.mapping.test_tile_merge import model_of, name_of
from vladmap.features.colmap import pycolmap
from vladmap.mapping import sound_models, tile_mapping
from vladmap.mapping.judging import JUDGED
from vladmap.mapping.mapper import MapperOptions
from vladmap.mapping.posed_mapper import FirstPose

# GPS has the photographs of the second half 70 m to the north and 70 m to the south by turns.
TORN = {number: [0.0, 70.0 * (-1) ** number, 0.0] for number in range(10, COUNT)}


def mapped(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    incremental: list[pycolmap.Reconstruction],
    globally: list[pycolmap.Reconstruction],
    seconds: int = 3600,
    gps: dict[int, list[float]] | None = None,
    posed: list[pycolmap.Reconstruction] | None = None,
) -> dict[str, Any]:
    """The report of a tile for which COLMAP's mappers make these models, `posed` from poses."""
    rows = [
        {**row, "uri": name, "width": 640, "height": 480} for name, row in along_drives(gps).items()
    ]
    monkeypatch.setattr(tile_mapping, "map_incrementally", lambda *_: incremental)
    monkeypatch.setattr(tile_mapping, "map_globally", lambda *_: globally)
    monkeypatch.setattr(tile_mapping, "read_pairs", lambda _: pairs_of(model_of(range(COUNT))))
    monkeypatch.setattr(tile_mapping, "largest_component", lambda _: COUNT)
    monkeypatch.setattr(sound_models, "calibrate", lambda model, _: model)
    options = MapperOptions(max_runtime_s=seconds, gps_sigma_m=1.0)
    monkeypatch.setattr(tile_mapping, "map_from_poses", lambda *_: posed)
    poses = {} if posed is None else {rows[0]["uri"]: FirstPose(np.eye(3), np.zeros(3))}
    return tile_mapping.map_tile(folder, rows, JUDGED.empty_table(), options, poses)


def test_a_sound_model_from_first_poses_spares_the_other_mappers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = model_of(range(COUNT))
    report = mapped(monkeypatch, tmp_path, [], [], posed=[whole])
    assert report["mapper"] == "poses"
    assert [each["images"] for each in report["models"]] == [COUNT]


def test_where_first_poses_lead_to_too_few_images_the_tile_is_mapped_incrementally(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few, whole = model_of(range(COUNT // 2)), model_of(range(COUNT))
    report = mapped(monkeypatch, tmp_path, [whole], [], posed=[few])
    assert report["mapper"] == "incremental"
    assert [each["images"] for each in report["models"]] == [COUNT]


def test_first_poses_stand_where_no_other_mapper_holds_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    half, fewer = model_of(range(COUNT // 2)), model_of(range(COUNT // 3))
    report = mapped(monkeypatch, tmp_path, [fewer], [fewer], posed=[half])
    assert report["mapper"] == "poses"


def test_a_global_model_that_fails_the_test_does_not_win_by_its_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Issue 19, 0: models wrong by tens of metres won by the number of registered images."""
    report = mapped(
        monkeypatch, tmp_path, [model_of(range(10))], [model_of(range(COUNT))], gps=TORN
    )
    assert report["mapper"] == "incremental"
    assert [each["images"] for each in report["models"]] == [10]


@pytest.mark.medium
def test_a_global_model_that_passes_has_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report = mapped(monkeypatch, tmp_path, [model_of(range(10))], [model_of(range(COUNT))])
    assert report["mapper"] == "global"
    assert [each["images"] for each in report["models"]] == [COUNT]


def test_an_incremental_model_that_gps_contradicts_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Issue 19, 0: the same test for both."""
    report = mapped(monkeypatch, tmp_path, [model_of(range(COUNT))], [], gps=TORN)
    assert report["models"] == []
    [left] = report["models_left_out"]
    assert left["images"] == COUNT
    assert "contradict" in left["reason"]
    assert report["dropped"][name_of(20)].startswith("its model is contradicted")


def test_one_wrong_photograph_is_taken_out_of_a_right_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = model_of(range(COUNT))
    move(model, 9, pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([0.0, 0.0, -60.0])))
    report = mapped(monkeypatch, tmp_path, [model], [])
    assert [each["images"] for each in report["models"]] == [COUNT - 1]
    assert list(report["dropped"]) == [name_of(9)]


def test_no_second_mapping_begins_that_would_not_end_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report = mapped(monkeypatch, tmp_path, [], [model_of(range(COUNT))], seconds=0)
    assert report["models"] == []
    assert report["out_of_time"] == ["the mapper was stopped before its end"]
