"""One tile from features and two-view geometries, on a street whose every pose is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.mapping.scene import CAMERA, features_of, id_of, images_of, views_of
from tests.mapping.test_tile_merge import ORIGIN, name_of, street
from vladmap.features.colmap import pycolmap
from vladmap.geodesy.wgs84 import enu_to_geodetic, geodetic_to_enu
from vladmap.mapping.camera_keys import camera_keys
from vladmap.mapping.georegister import centres_and_rotations
from vladmap.mapping.mapper import MapperOptions
from vladmap.mapping.reconstruct import TileResult, reconstruct_tile
from vladmap.mapping.two_view import two_view_table

NUMBERS = range(8)


def reconstructed(folder: Path, numbers: Any = NUMBERS, **given: Any) -> TileResult:
    images = given.pop("images", images_of(numbers))
    views = given.pop("views", views_of(numbers))
    key = camera_keys(images)[0]
    return reconstruct_tile(
        "tile", folder, images, features_of(numbers).__getitem__, two_view_table(views),
        {key: CAMERA}, **{"time_limit_s": 120.0, **given},
    )  # fmt: skip


def test_a_tile_is_mapped_and_stands_where_its_photographs_were_taken(tmp_path: Path) -> None:
    result = reconstructed(tmp_path)
    assert result.failure is None
    (report,) = result.report["models"]
    assert (report["images"], report["georegistered"]) == (len(NUMBERS), True)
    assert result.report["mapper"] == "incremental"
    assert result.report["unregistered"] == {}
    assert json.loads((tmp_path / "tile.json").read_text()) == result.report
    model = pycolmap.Reconstruction(str(tmp_path / "sparse" / "0"))
    names, centres, _ = centres_and_rotations(model)
    assert names == [name_of(number) for number in NUMBERS]
    there = geodetic_to_enu(enu_to_geodetic(centres, report["origin"]), ORIGIN)
    # GPS of eight places with half a metre of noise leaves some decimetres.
    assert np.linalg.norm(there - street()[0][: len(NUMBERS)], axis=1).max() < 1.0


@pytest.mark.slow
def test_the_same_tile_has_the_same_bytes_whatever_the_order_of_its_rows(tmp_path: Path) -> None:
    images = images_of(NUMBERS)
    backwards = images.take(pa.array(range(len(NUMBERS) - 1, -1, -1)))
    reconstructed(tmp_path / "one")
    reconstructed(tmp_path / "two", images=backwards)
    one, two = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert len(one) >= 4
    assert one == two


def test_a_photograph_without_a_pair_is_named_with_the_reason(tmp_path: Path) -> None:
    result = reconstructed(tmp_path, [*range(8), 20], views=views_of(range(8)))
    assert result.failure is None
    assert list(result.report["unregistered"]) == [id_of(20)]
    assert (result.report["images"], result.report["linked_images"]) == (9, 8)


def test_too_few_photographs_with_pairs_are_a_failure_that_names_them(tmp_path: Path) -> None:
    options = MapperOptions(min_model_size=6)
    result = reconstructed(tmp_path / "out", range(5), options=options)
    assert result.failure == "only 5 images have trusted pairs"
    assert set(result.report["unregistered"]) == {id_of(number) for number in range(5)}
    assert not (tmp_path / "out").exists()


def test_a_pair_that_was_judged_false_takes_no_part(tmp_path: Path) -> None:
    from vladmap.mapping.judging import JUDGED, judge_tables

    judged = judge_tables(images_of(range(6)), two_view_table(views_of(range(6))), 5.0)
    last = id_of(5)
    rows = [
        {**row, "verdict": "alike" if row["image_id_b"] == last else row["verdict"]}
        for row in judged.to_pylist()
    ]
    result = reconstructed(tmp_path, range(6), judged=pa.Table.from_pylist(rows, schema=JUDGED))
    assert list(result.report["unregistered"]) == [last]
    assert result.report["pairs"]["alike"] == sum(row["verdict"] == "alike" for row in rows)


def test_a_mapper_that_does_not_end_in_time_is_a_failure_of_the_tile(tmp_path: Path) -> None:
    result = reconstructed(tmp_path / "out", time_limit_s=0.01, options=MapperOptions())
    assert result.failure is not None
    assert result.failure.startswith("mapping failed")
    assert set(result.report["unregistered"]) == {id_of(number) for number in NUMBERS}
    assert not (tmp_path / "out" / "sparse").exists()


def test_without_gps_a_model_stays_in_a_frame_of_its_own(tmp_path: Path) -> None:
    images = images_of(NUMBERS, latitude=None, longitude=None, altitude=None)
    result = reconstructed(tmp_path, images=images)
    (report,) = result.report["models"]
    assert (report["images"], report["georegistered"]) == (len(NUMBERS), False)


def test_record_adds_the_images_that_have_no_features() -> None:
    record = TileResult("a", {"models": []}, "why").record(12)
    assert record == {"models": [], "tile": "a", "images": 12, "failure": "why"}
    with pytest.raises(AttributeError):
        TileResult("a").name = "b"  # type: ignore[misc]
