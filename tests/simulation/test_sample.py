"""The sample collection: EXIF that cameras write, truth that agrees with it, the same bytes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from vladmap.photos.ids import image_id
from vladmap.schemas.rejects import UserError
from vladmap.schemas.truth_tables import TRUTH
from vladmap.simulation.sample import ORIGIN, write_sample

pytestmark = pytest.mark.medium

IMAGES = 12


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample")
    write_sample(out, IMAGES, seed=1, gps_dropout=0.25)
    return out


def photographs(sample: Path) -> list[Path]:
    return sorted((sample / "images").rglob("*.jpg"))


def gps_of(path: Path) -> dict[int, object]:
    return Image.open(path).getexif().get_ifd(IFD.GPSInfo)


def degrees(parts: tuple[float, float, float]) -> float:
    return float(parts[0]) + float(parts[1]) / 60 + float(parts[2]) / 3600


def test_truth_has_the_contract_s_schema_and_names_every_photograph(sample: Path) -> None:
    table = pq.read_table(sample / "truth.parquet")
    assert table.schema.equals(TRUTH)
    paths = [path.relative_to(sample / "images").as_posix() for path in photographs(sample)]
    assert table["path"].to_pylist() == paths
    assert table["image_id"].to_pylist() == [image_id(path) for path in paths]
    metadata = table.schema.metadata
    origin = [
        float(metadata[f"vladmap:origin_{name}".encode()])
        for name in ("latitude", "longitude", "altitude")
    ]
    assert tuple(origin) == ORIGIN


def test_the_focal_length_in_exif_is_the_true_one(sample: Path) -> None:
    truth = pq.read_table(sample / "truth.parquet").to_pylist()[0]
    image = Image.open(photographs(sample)[0])
    assert image.size == (truth["width"], truth["height"]) == (640, 480)
    tags = image.getexif().get_ifd(IFD.Exif)
    assert tags[Base.FocalPlaneResolutionUnit] == 3  # centimetres
    pixels_a_mm = float(tags[Base.FocalPlaneXResolution]) / 10
    assert float(tags[Base.FocalLength]) * pixels_a_mm == pytest.approx(truth["fx"], rel=1e-6)
    # 35 mm equivalent by the diagonal, the EXIF definition; whole millimetres.
    equivalent = tags[Base.FocalLengthIn35mmFilm] * np.hypot(640, 480) / np.hypot(24, 36)
    assert equivalent == pytest.approx(truth["fx"], rel=0.002)


def test_gps_is_the_truth_with_noise_and_some_photographs_have_none(tmp_path: Path) -> None:
    write_sample(tmp_path, 6, seed=2, gps_sigma_m=0.0, gps_dropout=0.0)
    for path, truth in zip(
        photographs(tmp_path), pq.read_table(tmp_path / "truth.parquet").to_pylist(), strict=True
    ):
        gps = gps_of(path)
        assert (gps[GPS.GPSLatitudeRef], gps[GPS.GPSLongitudeRef]) == ("N", "E")
        assert degrees(gps[GPS.GPSLatitude]) == pytest.approx(truth["latitude"], abs=5e-8)
        assert degrees(gps[GPS.GPSLongitude]) == pytest.approx(truth["longitude"], abs=5e-8)
        assert float(gps[GPS.GPSAltitude]) == pytest.approx(truth["altitude"], abs=1e-3)
        assert gps[GPS.GPSImgDirectionRef] == "T"
        # The camera looks north at the start of its drive.
        assert abs((float(gps[GPS.GPSImgDirection]) + 180) % 360 - 180) < 10
        assert float(gps[GPS.GPSHPositioningError]) == 0.0


def test_drop_outs_lack_gps_but_not_the_time(sample: Path) -> None:
    having = [bool(gps_of(path)) for path in photographs(sample)]
    assert 0 < having.count(False) < IMAGES
    for path in photographs(sample):
        tags = Image.open(path).getexif()
        details = tags.get_ifd(IFD.Exif)
        assert tags[Base.Make] == "vladmap"
        assert details[Base.OffsetTimeOriginal] == "+02:00"
        assert len(details[Base.SubsecTimeOriginal]) == 3


def test_times_follow_the_drive(sample: Path) -> None:
    moments = []
    for path in photographs(sample):
        details = Image.open(path).getexif().get_ifd(IFD.Exif)
        moment = datetime.strptime(details[Base.DateTimeOriginal], "%Y:%m:%d %H:%M:%S")
        moments.append(moment.timestamp() + int(details[Base.SubsecTimeOriginal]) / 1000)
    steps = np.diff(moments)
    assert (steps > 0.1).all()
    assert (steps < 1.0).all()


def test_the_same_arguments_give_the_same_bytes(sample: Path, tmp_path: Path) -> None:
    counted: list[int] = []
    write_sample(tmp_path, IMAGES, seed=1, gps_dropout=0.25, progress=counted.append)
    assert counted == [1] * IMAGES
    for path in (*photographs(sample), sample / "truth.parquet"):
        assert (tmp_path / path.relative_to(sample)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"images": 0}, "images"),
        ({"gps_sigma_m": -1.0}, "noise"),
        ({"gps_dropout": 1.5}, "without GPS"),
        ({"time_of_day": 24.0}, "time of day"),
    ],
)
def test_arguments_out_of_range_are_told(
    tmp_path: Path, arguments: dict[str, float], word: str
) -> None:
    with pytest.raises(UserError, match=word):
        write_sample(tmp_path, **arguments)


def test_photographs_that_are_there_are_not_written_over(sample: Path) -> None:
    with pytest.raises(UserError, match="already holds"):
        write_sample(sample, 1)


def test_queries_are_beside_the_drives_on_another_day_and_leave_the_collection_as_it_is(
    sample: Path, tmp_path: Path
) -> None:
    write_sample(tmp_path, IMAGES, seed=1, gps_dropout=0.25, queries=3)
    for one, other in zip(photographs(sample), photographs(tmp_path), strict=True):
        assert one.read_bytes() == other.read_bytes()
    drives, asked = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("truth", "queries"))
    assert asked.schema.equals(TRUTH)
    assert asked["path"].to_pylist() == [f"queries/00000{number}.jpg" for number in range(3)]
    there, here = (
        np.stack([table[axis].to_numpy() for axis in ("east", "north", "up")], axis=1)
        for table in (drives, asked)
    )
    nearest = np.linalg.norm(here[:, None] - there, axis=2).min(axis=1)
    assert ((nearest > 1.2) & (nearest < 3.5)).all()  # beside, and between two of them
    taken = {Image.open(tmp_path / path).getexif().get_ifd(IFD.Exif)[Base.DateTimeOriginal]
             for path in asked["path"].to_pylist()}  # fmt: skip
    assert {day[:10] for day in taken} == {"2024:05:22"}
