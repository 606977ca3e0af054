"""`images/` as pandas, geopandas and pyarrow read it (issue 19, 23)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import shapely

from vladmap.photos.cells import assign_cells
from vladmap.photos.image_table import image_table
from vladmap.schemas import tables

PLACES = [
    (55.7, 13.19, 52.0),
    (55.7001, 13.1901, None),
    (-33.9, 151.2, -3.0),
    (None, None, None),
    (None, None, 12.0),
]


def row(number: int, place: tuple[float | None, float | None, float | None]) -> dict[str, Any]:
    return dict.fromkeys(tables.IMAGES.names) | {
        "image_id": f"{number:032x}", "path": f"drive/{number}.jpg", "content_hash": "0",
        "uri": f"/photos/drive/{number}.jpg", "width": 4, "height": 3, "sharpness": 1.0,
        "projection": "perspective", "latitude": place[0], "longitude": place[1],
        "altitude": place[2],
    }  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `images/` of three cells, as an atlas has it."""
    folder = tmp_path_factory.mktemp("atlas") / "images"
    cells = assign_cells([place[0] for place in PLACES], [place[1] for place in PLACES])
    for cell in sorted(set(cells)):
        rows = [
            row(number, place)
            for number, (place, at) in enumerate(zip(PLACES, cells, strict=True))
            if at == cell
        ]
        (folder / f"cell={cell}").mkdir(parents=True)
        pq.write_table(image_table(rows), folder / f"cell={cell}" / "g0000-000.parquet")
    return folder


def cells_of(images: Path) -> set[str]:
    return {path.name.removeprefix("cell=") for path in images.iterdir()}


def test_the_folder_is_a_hive_data_set_for_every_reader(images: Path) -> None:
    """Issue 19, 23: `cell` stood in the file, of another type than readers make of the path."""
    frames = [
        pyarrow.dataset.dataset(images, partitioning="hive").to_table().to_pandas(),
        pq.read_table(images).to_pandas(),
        pd.read_parquet(images),
        geopandas.read_parquet(images),
    ]
    for frame in frames:
        assert len(frame) == len(PLACES)
        assert set(frame["cell"]) == cells_of(images)
    alone = pd.read_parquet(images, filters=[("cell", "=", "none")])
    assert alone["name"].tolist() == ["drive/3.jpg", "drive/4.jpg"]


def test_a_box_reads_what_lies_in_it(images: Path) -> None:
    """Issue 19, 23: reading by `bbox=` needs the covering."""
    lund = geopandas.read_parquet(images, bbox=(13.0, 55.0, 14.0, 56.0))
    assert sorted(lund["name"]) == ["drive/0.jpg", "drive/1.jpg"]
    assert len(geopandas.read_parquet(images, bbox=(150.0, -34.0, 152.0, -33.0))) == 1
    assert len(geopandas.read_parquet(images, bbox=(0.0, 0.0, 1.0, 1.0))) == 0


def test_the_geometry_has_the_altitude_where_it_is_known(images: Path) -> None:
    """Issue 19, 23."""
    frame = geopandas.read_parquet(images).sort_values("name")
    assert frame.geometry.isna().tolist() == [False, False, False, True, True]
    points = np.asarray(frame.geometry.array)[:3]
    assert shapely.has_z(points).tolist() == [True, False, True]
    assert shapely.get_z(points)[[0, 2]].tolist() == [52.0, -3.0]
    assert frame.geometry.x[frame["name"] == "drive/2.jpg"].tolist() == [151.2]


def test_the_table_is_of_the_contract(images: Path) -> None:
    """A name relative to the collection, and no column of the folder's."""
    for path in images.rglob("*.parquet"):
        found = pq.read_schema(path)
        assert found.remove_metadata().equals(tables.IMAGES.remove_metadata())
        assert "cell" not in found.names
