import io
import json
from datetime import UTC, datetime

import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from vladmap.photos.geoparquet import points_wkb, with_geo_metadata
from vladmap.photos.headers.header import Header
from vladmap.photos.manifests.columns import MANIFEST, is_manifest_name
from vladmap.photos.manifests.rows import override
from vladmap.photos.manifests.table import manifest_notes, read_manifest
from vladmap.schemas.rejects import UserError
from vladmap.schemas.tables import IMAGES


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def geoparquet(frame: geopandas.GeoDataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def feature(uri, coordinates, **properties):
    geometry = None if coordinates is None else {"type": "Point", "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": {"uri": uri, **properties}}


def collection(*features, **members) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": features, **members}).encode()


class TestCsv:
    def test_all_columns(self):
        table = read_manifest(
            "m.csv",
            b"uri,latitude,longitude,altitude,gps_accuracy_m,heading_deg,captured_at,sequence_id,"
            b"make,model,focal_px,projection,other\n"
            b"a/1.jpg,55.7,13.19,37,4.5,180,2024-05-01T10:00:00.25+02:00,7,Acme,M 1,900.5,"
            b"perspective,x\n"
            b"a/2.jpg,,,,,,2024-05-01 08:00:01,,,,,,\n",
        )
        assert table.schema == MANIFEST
        first, second = table.to_pylist()
        assert first == {
            "uri": "a/1.jpg", "latitude": 55.7, "longitude": 13.19, "altitude": 37.0,
            "gps_accuracy_m": 4.5, "heading_deg": 180.0, "sequence_id": "7", "make": "Acme",
            "projection": "perspective",
            "captured_at": datetime(2024, 5, 1, 8, 0, 0, 250000, tzinfo=UTC), "model": "M 1",
            "focal_px": 900.5,
        }  # fmt: skip
        assert second["captured_at"] == datetime(2024, 5, 1, 8, 0, 1, tzinfo=UTC)
        assert second["latitude"] is None
        assert second["make"] is None

    @pytest.mark.parametrize(
        "data",
        [
            b"\xef\xbb\xbfPath;Lat;LON\r\nx y.jpg;1.5;-2.5\r\n",
            b"filename\tlat\tlng\nx y.jpg\t1.5\t-2.5\n",
            b'file,latitude,longitude\n"x y.jpg"," 1.5 ",-2.5\n',
            b"uri,geometry\nx y.jpg,POINT (-2.5 1.5)\n",
        ],
    )
    def test_delimiters_quotes_aliases_and_geometries(self, data):
        row = read_manifest("M.CSV", data).to_pylist()[0]
        assert (row["uri"], row["latitude"], row["longitude"]) == ("x y.jpg", 1.5, -2.5)

    def test_numbers_in_text_columns_stay_text_and_uris_stay_as_written(self):
        row = read_manifest("m.csv", b"uri,sequence,model\n00012,007,5\n").to_pylist()[0]
        assert (row["uri"], row["sequence_id"], row["model"]) == ("00012", "007", "5")
        uri = "gs://bucket/ö ä/1 #2.jpg"
        assert read_manifest("m.csv", f"uri\n{uri}\n".encode())["uri"].to_pylist() == [uri]

    def test_nan_out_of_range_and_zero_are_left_to_override(self):
        table = read_manifest("m.csv", b"uri,lat,lon\na.jpg,nan,5\nb.jpg,91,5\nc.jpg,0,0\n")
        assert table["latitude"].to_pylist()[1:] == [91.0, 0.0]


def test_a_projection_of_the_manifest_goes_before_the_photograph_s():
    """Issue 19, 3: the way out where a panorama was not recognised, or a picture taken for one."""
    data = b"uri,projection\na.jpg,equirectangular\nb.jpg,perspective\nc.jpg,\n"
    rows = read_manifest("m.csv", data).to_pylist()
    header = Header(width=10, height=5, format="JPEG", focal_px=7.0)
    panorama, plain, silent = (override(header, row) for row in rows)
    assert (panorama.projection, panorama.focal_px) == ("equirectangular", None)
    assert (plain.projection, plain.focal_px) == ("perspective", 7.0)
    assert silent == header
    with pytest.raises(UserError, match=r"perspective, equirectangular.*found: sphere"):
        read_manifest("m.csv", b"uri,projection\na.jpg,sphere\n")


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "data", "words"),
        [
            ("m.csv", b"latitude,longitude\n1,2\n", ("uri", "found: latitude, longitude")),
            ("m.csv", b"", ("empty",)),
            ("m.csv", b"uri,latitude\na.jpg,north\n", ("latitude", "north")),
            ("m.csv", b"uri,captured_at\na.jpg,yesterday\n", ("captured_at", "yesterday")),
            ("m.csv", b"uri,latitude\na.jpg,1\n,2\n", ("row 2 has no uri",)),
            ("m.csv", b"uri\na.jpg\na.jpg\n", ("a.jpg",)),
            ("m.csv", b"uri,latitude\na.jpg,1,2\n", ("m.csv",)),
            ("m.csv", b"uri\n\xff\xfe\n", ("m.csv",)),
            ("m.csv", b'uri,geometry\na.jpg,"LINESTRING (0 0, 1 1)"\n', ("point",)),
            ("m.csv", b"uri,geometry\na.jpg,POINT 1\n", ("geometry",)),
            ("m.parquet", b"not parquet", ("not a readable parquet",)),
            ("m.geojson", b"[1, 2", ("not a readable geojson",)),
            ("m.geojson", b'{"type": "Feature"}', ("FeatureCollection",)),
            ("m.geojson", b"[" * 100_000, ("m.geojson",)),
            ("m.txt", b"uri\na.jpg\n", (".csv", ".parquet", ".geojson")),
        ],
    )
    def test_one_clear_line(self, name, data, words):
        with pytest.raises(UserError) as caught:
            read_manifest(name, data)
        message = str(caught.value)
        assert name in message
        assert "\n" not in message
        assert all(word in message for word in words), message

    def test_a_number_is_no_time(self):
        with pytest.raises(UserError, match="captured_at"):
            read_manifest("m.parquet", parquet(pa.table({"uri": ["a"], "captured_at": [5]})))

    def test_missing_column_of_a_parquet_names_what_is_there(self):
        with pytest.raises(UserError, match=r"needs the column uri .*found: lat, lon"):
            read_manifest("m.parquet", parquet(pa.table({"lat": [1.0], "lon": [2.0]})))


class TestParquet:
    def test_types_are_brought_to_the_manifests(self):
        table = pa.table({
            "path": pa.array(["a.jpg", "b.jpg"], pa.large_string()),
            "lat": pa.array([1.5, None], pa.float32()),
            "lon": pa.array([2, 3], pa.int16()),
            "captured_at": pa.array([datetime(2024, 5, 1, 8), None], pa.timestamp("ns")),
            "sequence": pa.array([1, 2]),
        })  # fmt: skip
        read = read_manifest("m.parquet", parquet(table))
        assert read.schema == MANIFEST
        assert read["captured_at"].to_pylist() == [datetime(2024, 5, 1, 8, tzinfo=UTC), None]
        assert read["longitude"].to_pylist() == [2.0, 3.0]
        assert read["sequence_id"].to_pylist() == ["1", "2"]

    def test_plain_wkb_gives_positions(self):
        table = pa.table({"uri": ["a", "b"], "geometry": points_wkb([1.5, None], [2.5, None])})
        read = read_manifest("m.parquet", parquet(table))
        assert read["latitude"].to_pylist() == [1.5, None]
        assert read["longitude"].to_pylist() == [2.5, None]

    def test_geoparquet_in_crs84_and_altitude_from_z(self):
        frame = geopandas.GeoDataFrame(
            {"uri": ["a", "b"]},
            geometry=[shapely.Point(13.19, 55.7, 37.0), None],
            crs="OGC:CRS84",
        )
        read = read_manifest("m.geoparquet", geoparquet(frame))
        assert read["latitude"].to_pylist() == [55.7, None]
        assert read["altitude"].to_pylist() == [37.0, None]

    @pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:3857", "EPSG:4326"])
    def test_another_system_is_reprojected(self, crs):
        frame = geopandas.GeoDataFrame(
            {"uri": ["a"]}, geometry=[shapely.Point(13.19, 55.7)], crs="OGC:CRS84"
        ).to_crs(crs)
        row = read_manifest("m.parquet", geoparquet(frame)).to_pylist()[0]
        assert (row["latitude"], row["longitude"]) == pytest.approx((55.7, 13.19), abs=1e-8)

    def test_a_geometry_without_a_system_and_lines_are_refused(self):
        frame = geopandas.GeoDataFrame({"uri": ["a"]}, geometry=[shapely.Point(1, 2)], crs=None)
        with pytest.raises(UserError, match="reference system"):
            read_manifest("m.parquet", geoparquet(frame))
        frame = geopandas.GeoDataFrame(
            {"uri": ["a"]}, geometry=[shapely.LineString([(0, 0), (1, 1)])], crs="OGC:CRS84"
        )
        with pytest.raises(UserError, match="point"):
            read_manifest("m.parquet", geoparquet(frame))

    def test_the_images_table_of_an_atlas_is_a_manifest(self):
        row = dict.fromkeys(IMAGES.names)
        row |= {
            "image_id": "0", "uri": "a.jpg", "content_hash": "1", "width": 10, "height": 10,
            "latitude": 55.7, "longitude": 13.19, "sharpness": 1.0,
            "name": "a.jpg", "projection": "perspective",
            "captured_at": datetime(2024, 5, 1, 8, tzinfo=UTC),
            "geometry": points_wkb([55.7], [13.19])[0].as_py(),
        }  # fmt: skip
        images = with_geo_metadata(pa.Table.from_pylist([row], schema=IMAGES))
        read = read_manifest("images.parquet", parquet(images)).to_pylist()[0]
        assert (read["uri"], read["latitude"], read["longitude"]) == ("a.jpg", 55.7, 13.19)
        assert read["captured_at"] == row["captured_at"]


class TestGeoJson:
    def test_points_properties_and_features_without_geometry(self):
        read = read_manifest(
            "m.geojson",
            collection(
                feature(
                    "a.jpg", [13.19, 55.7, 37.0], heading=90, captured_at="2024-05-01T08:00:00Z"
                ),
                feature("b.jpg", None, make="Acme"),
                feature("c.jpg", [-179.9, -16.8]),
            ),
        ).to_pylist()
        assert [row["latitude"] for row in read] == [55.7, None, -16.8]
        assert [row["longitude"] for row in read] == [13.19, None, -179.9]
        assert (read[0]["altitude"], read[0]["heading_deg"]) == (37.0, 90.0)
        assert read[0]["captured_at"] == datetime(2024, 5, 1, 8, tzinfo=UTC)
        assert read[1]["make"] == "Acme"

    def test_mixed_types_of_a_property_are_read(self):
        read = read_manifest(
            "m.json",
            collection(feature("a", [1, 2], altitude=5), feature("b", [1, 2], altitude="6.5")),
        )
        assert read["altitude"].to_pylist() == [5.0, 6.5]

    def test_an_old_crs_member_is_honoured_and_an_unknown_one_refused(self):
        from pyproj import Transformer

        x, y = Transformer.from_crs("OGC:CRS84", "EPSG:3857", always_xy=True).transform(13.19, 55.7)
        crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}
        read = read_manifest("m.geojson", collection(feature("a", [x, y]), crs=crs)).to_pylist()[0]
        assert (read["latitude"], read["longitude"]) == pytest.approx((55.7, 13.19), abs=1e-8)
        with pytest.raises(UserError, match="reference system"):
            read_manifest("m.geojson", collection(feature("a", [1, 2]), crs={"type": "name"}))

    def test_no_features_and_no_properties(self):
        with pytest.raises(UserError, match="uri"):
            read_manifest("m.geojson", collection())
        bare = {"type": "Feature", "geometry": None, "properties": None}
        with pytest.raises(UserError, match="uri"):
            read_manifest("m.geojson", collection(bare))
        lines = feature("a", [[0, 0], [1, 1]])
        lines["geometry"]["type"] = "LineString"
        with pytest.raises(UserError, match="point"):
            read_manifest("m.geojson", collection(lines))
        with pytest.raises(UserError, match=r"m\.geojson"):
            read_manifest("m.geojson", collection(feature("a", ["x", "y"])))


class TestOverride:
    header = Header(
        width=10,
        height=10,
        format="JPEG",
        make="Own",
        latitude=1.0,
        longitude=2.0,
        altitude=3.0,
        altitude_reference="sea_level",
        heading_deg=4.0,
        notes=("capture_zone_unknown", "heading_magnetic"),
    )

    def test_values_win_and_nulls_leave_the_header_as_it_is(self):
        assert override(self.header, dict.fromkeys(MANIFEST.names)) == self.header
        moment = datetime(2024, 5, 1, 8, tzinfo=UTC)
        changed = override(
            self.header,
            {
                "uri": "a",
                "latitude": -5.0,
                "longitude": 6.0,
                "captured_at": moment,
                "focal_px": 900.0,
                "heading_deg": -90.0,
                "sequence_id": "s",
                "model": "M",
                "altitude": 7.0,
            },
        )
        assert (changed.latitude, changed.longitude, changed.altitude) == (-5.0, 6.0, 7.0)
        assert (changed.captured_at, changed.focal_px, changed.heading_deg) == (
            moment,
            900.0,
            270.0,
        )
        assert (changed.make, changed.model, changed.sequence) == ("Own", "M", "s")
        assert changed.altitude_reference is None
        assert changed.notes == ()

    @pytest.mark.parametrize(
        ("latitude", "longitude"), [(0.0, 0.0), (91.0, 1.0), (float("nan"), 1.0), (1.0, None)]
    )
    def test_an_invalid_position_leaves_the_photographs_own_or_is_noted(self, latitude, longitude):
        row = {"latitude": latitude, "longitude": longitude}
        assert override(self.header, row) == self.header
        bare = Header(width=10, height=10, format="JPEG")
        assert override(bare, row).notes == ("position_invalid",)
        assert override(bare, row).latitude is None


def test_names_of_manifests():
    assert all(is_manifest_name(name) for name in ("a.csv", "b.PARQUET", "c.geojson", "d.json"))
    assert not any(is_manifest_name(name) for name in ("a.jpg", "csv.d", "parquets"))


class TestColumns:
    def test_unused_columns_are_named_with_what_may_be_meant(self):
        """Issue 19, 11: a misspelt column meant no positions without a word."""
        table = read_manifest("m.csv", b"uri,lattitude,x,y,weather\na.jpg,1,2,3,4\n")
        said = manifest_notes(table)
        assert said[0] == "columns of the manifest that are not read: lattitude, x, y, weather"
        assert "lattitude may be meant for latitude: call it that, in WGS84 degrees" in said
        assert "x may be meant for longitude: call it that, in WGS84 degrees" in said
        assert "y may be meant for latitude: call it that, in WGS84 degrees" in said
        assert "no positions" in said[-1]
        assert not any("weather may" in line for line in said)

    def test_a_manifest_that_is_read_whole_has_nothing_said_of_it(self):
        assert manifest_notes(read_manifest("m.csv", b"uri,lat,lon\na.jpg,1,2\n")) == ()
        assert "no longitude" in manifest_notes(read_manifest("m.csv", b"uri,lat\na.jpg,1\n"))[-1]

    @pytest.mark.parametrize(
        "header",
        ["SourceFile,GPSLatitude,GPSLongitude,GPSImgDirection", "File,Lat,Lng,Heading",
         "path,EXIF:GPSLatitude,EXIF:GPSLongitude,EXIF:GPSImgDirection",
         "file_name,GPS Latitude,gps-longitude,Compass_Angle", "image path,LAT,LONG,bearing"],
    )  # fmt: skip
    def test_usual_names_of_columns_are_understood(self, header):
        """Issue 19, 11: GPSLatitude meant no position."""
        table = read_manifest("m.csv", f"{header}\na.jpg,1.5,-2.5,90\n".encode())
        row = table.to_pylist()[0]
        assert (row["uri"], row["latitude"], row["longitude"]) == ("a.jpg", 1.5, -2.5)
        assert row["heading_deg"] == 90.0
        assert manifest_notes(table) == ()

    def test_hemispheres_in_columns_of_their_own_are_heard(self):
        """Issue 19, 11, its kind: unsigned degrees and S or W."""
        table = read_manifest(
            "m.csv",
            b"uri,GPSLatitude,GPSLatitudeRef,GPSLongitude,GPSLongitudeRef\n"
            b"a.jpg,33.5,S,70.25,West\nb.jpg,-33.5,S,70.25,E\nc.jpg,33.5,N,70.25,\n",
        )
        assert table["latitude"].to_pylist() == [-33.5, -33.5, 33.5]
        assert table["longitude"].to_pylist() == [-70.25, 70.25, 70.25]
        assert manifest_notes(table) == ()

    def test_of_two_columns_of_one_meaning_the_other_is_named(self):
        table = read_manifest("m.csv", b"uri,lat,latitude,lon\na.jpg,1,2,3\n")
        assert table["latitude"].to_pylist() == [2.0]
        assert manifest_notes(table) == ("columns of the manifest that are not read: lat",)


@pytest.mark.parametrize(
    ("written", "heading"),
    [(370.0, 10.0), (-10.0, 350.0), (360.0, 0.0), (725.0, 5.0), (-450.0, 270.0), (-1e-20, 0.0)],
)
def test_headings_are_angles_in_any_turn(written, heading):
    """Issue 19, 11: over 360 and below 0 they were dropped without a note."""
    bare = Header(width=10, height=10, format="JPEG")
    assert override(bare, {"heading_deg": written}).heading_deg == heading


@pytest.mark.parametrize(
    ("column", "value"),
    [("heading_deg", float("nan")), ("heading_deg", float("inf")), ("heading_deg", -9999.0),
     ("altitude", 1e6), ("gps_accuracy_m", -1.0), ("focal_px", 0.0)],
)  # fmt: skip
def test_what_a_manifest_says_and_cannot_be_used_is_noted(column, value):
    """Issue 19, 11."""
    header = Header(width=10, height=10, format="JPEG", altitude=3.0)
    changed = override(header, {column: value})
    assert changed.notes == (f"{column}_invalid",)
    assert getattr(changed, column) == getattr(header, column)
