import io
import json
import struct

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from vladmap.photos.geoparquet import bounding_box, boxes, points_wkb, with_geo_metadata
from vladmap.schemas.tables import IMAGES, POSES


def table(lat, lon):
    return pa.table({"name": [str(i) for i in range(len(lat))], "geometry": points_wkb(lat, lon)})


def read(written: pa.Table) -> geopandas.GeoDataFrame:
    buffer = io.BytesIO()
    pq.write_table(with_geo_metadata(written), buffer)
    return geopandas.read_parquet(io.BytesIO(buffer.getvalue()))


def test_a_point_is_21_bytes_of_little_endian_wkb_longitude_first():
    wkb = points_wkb([55.7], [13.19])[0].as_py()
    assert wkb == struct.pack("<BIdd", 1, 1, 13.19, 55.7)


def test_what_is_no_position_has_no_geometry():
    geometry = points_wkb([55.7, None, 0.0, np.nan, 91.0], [13.19, 1.0, 0.0, 1.0, 1.0])
    assert geometry.type == pa.binary()
    assert geometry.is_valid().to_pylist() == [True, False, False, False, False]


def test_geopandas_reads_crs84_points_and_nulls():
    frame = read(table([55.7, None, -33.9], [13.19, None, 151.2]))
    assert isinstance(frame, geopandas.GeoDataFrame)
    assert frame.crs == "OGC:CRS84"
    assert frame.crs.to_authority() == ("OGC", "CRS84")
    assert frame.geometry.x[0] == 13.19
    assert frame.geometry.isna().tolist() == [False, True, False]


def test_geopandas_reads_a_table_across_the_antimeridian_and_the_box_goes_over_it():
    crossing = table([-16.8, -16.7, -17.0], [179.9, -179.8, 179.95])
    assert len(read(crossing)) == 3
    column = json.loads(with_geo_metadata(crossing).schema.metadata[b"geo"])["columns"]["geometry"]
    assert column["bbox"] == [179.9, -17.0, -179.8, -16.7]
    assert column["geometry_types"] == ["Point"]
    assert column["encoding"] == "WKB"


def test_geopandas_reads_tables_of_no_positions_and_of_no_rows():
    assert len(read(table([None], [None]))) == 1
    assert len(read(table([], []))) == 0
    column = json.loads(with_geo_metadata(table([], [])).schema.metadata[b"geo"])["columns"]
    assert "bbox" not in column["geometry"]
    assert column["geometry"]["geometry_types"] == []


@pytest.mark.parametrize("schema", [IMAGES, POSES])
def test_the_atlas_tables_keep_their_own_metadata(schema):
    marked = with_geo_metadata(schema.empty_table())
    assert marked.schema.metadata[b"vladmap:table"] == schema.metadata[b"vladmap:table"]
    assert marked.schema.field("latitude").metadata == schema.field("latitude").metadata
    assert b"geo" in marked.schema.metadata


@pytest.mark.parametrize(
    ("longitude", "west", "east"),
    [
        ([13.0], 13.0, 13.0),
        ([13.0, 14.0], 13.0, 14.0),
        ([-170.0, 170.0], 170.0, -170.0),
        ([-90.0, 90.0], -90.0, 90.0),
        ([-180.0, 180.0], 180.0, -180.0),
        ([-120.0, 0.0, 120.0], -120.0, 120.0),
    ],
)
def test_the_narrowest_box_and_on_a_tie_the_one_that_keeps_off_the_antimeridian(
    longitude, west, east
):
    box = bounding_box(np.array(longitude), np.zeros(len(longitude)))
    assert box == [west, 0.0, east, 0.0]


def test_the_same_positions_give_the_same_metadata_in_any_order():
    a = with_geo_metadata(table([1.0, 2.0], [3.0, 4.0])).schema.metadata[b"geo"]
    b = with_geo_metadata(table([2.0, 1.0], [4.0, 3.0])).schema.metadata[b"geo"]
    assert a == b


def test_a_point_with_an_altitude_is_iso_wkb_with_a_z():
    """Issue 19, 23."""
    wkb = points_wkb([55.7, 55.7], [13.19, 13.19], [52.0, None]).to_pylist()
    assert wkb[0] == struct.pack("<BIddd", 1, 1001, 13.19, 55.7, 52.0)
    assert wkb[1] == struct.pack("<BIdd", 1, 1, 13.19, 55.7)


def test_the_metadata_tell_the_kinds_of_points_the_heights_and_the_covering():
    """Issue 19, 23."""
    lat, lon, up = [55.7, 55.8, None], [13.1, 13.3, 1.0], [52.0, None, 3.0]
    columns = {"geometry": points_wkb(lat, lon, up), "bbox": boxes(lat, lon)}
    marked = with_geo_metadata(pa.table(columns))
    described = json.loads(marked.schema.metadata[b"geo"])["columns"]["geometry"]
    assert described["geometry_types"] == ["Point", "Point Z"]
    assert described["bbox"] == [13.1, 55.7, 52.0, 13.3, 55.8, 52.0]
    assert described["covering"]["bbox"]["ymax"] == ["bbox", "ymax"]
    assert marked["bbox"].to_pylist() == [
        {"xmin": 13.1, "ymin": 55.7, "xmax": 13.1, "ymax": 55.7},
        {"xmin": 13.3, "ymin": 55.8, "xmax": 13.3, "ymax": 55.8},
        None,
    ]


def test_the_kinds_of_all_geometries_are_named():
    shapes = [shapely.Point(1, 2), shapely.Point(1, 2, 3), shapely.box(0, 0, 4, 5), None]
    shapes += [shapely.MultiPolygon([shapely.box(6, 0, 7, 1)])]
    column = pa.array([shape and shapely.to_wkb(shape, flavor="iso") for shape in shapes])
    geo = json.loads(with_geo_metadata(pa.table({"geometry": column})).schema.metadata[b"geo"])
    (described,) = geo["columns"].values()
    assert described["geometry_types"] == ["Point", "Point Z", "Polygon", "MultiPolygon"]
    assert described["bbox"] == [0.0, 0.0, 3.0, 7.0, 5.0, 3.0]
    assert read(pa.table({"geometry": column})).geometry.geom_type.nunique() == 3
