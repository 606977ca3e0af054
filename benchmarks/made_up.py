"""A made-up collection and made-up descriptors: what stands in where only the count matters.

Photographs of 32x24 pixels with all the tags that a build reads, taken on drives through towns and
country; descriptors that are alike where two photographs were taken near each other.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import ExifTags, Image

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry, commit_shard
from vladmap.retrieval.descriptors import descriptor_table
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL, LedgerEntry, Task
from vladmap.transforms.describe import ModelSettings

DRIVE = 250
DIMENSION = 512
_IN_TOWN_M, _IN_COUNTRY_M = 8.0, 70.0
_STREETS_M = 100.0
_DRIVES_ABREAST = 25
_COUNTRY_EVERY = 5
_LATITUDE, _LONGITUDE = 47.0, 8.0
_M_PER_DEGREE = 111_320.0
_ALIKE_M = 15.0


def write_photographs(folder: Path, first: int, count: int) -> None:
    """Photographs `first` to `first + count` of an endless collection, a folder for each drive.

    Of five drives four go through town, a photograph each 8 m, streets 100 m apart; the fifth
    through the country, one each 70 m: a dozen in an H3 cell. Whatever the number of photographs,
    a town has as many on a square kilometre.
    """
    picture = Image.effect_noise((32, 24), 64).convert("RGB")
    sink = io.BytesIO()
    for number in range(first, first + count):
        drive, place = divmod(number, DRIVE)
        exif = _exif(drive, place)
        sink.seek(0)
        sink.truncate()
        picture.save(sink, "JPEG", quality=75, exif=exif)
        path = folder / f"{drive // 100:04d}" / f"{drive:06d}" / f"{place:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Decoders stop at the end of the image: what follows makes it another file.
        path.write_bytes(sink.getvalue() + number.to_bytes(8, "big"))


def _exif(drive: int, place: int) -> bytes:
    east, north = _position(drive, place)
    latitude = _LATITUDE + north / _M_PER_DEGREE
    longitude = _LONGITUDE + east / (_M_PER_DEGREE * np.cos(np.radians(_LATITUDE)))
    taken = datetime(2026, 5, 1, 8, tzinfo=UTC) + timedelta(hours=drive, seconds=2 * place)
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Acme", f"Street {drive % 7}"
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {
            ExifTags.Base.DateTimeOriginal: f"{taken:%Y:%m:%d %H:%M:%S}",
            ExifTags.Base.OffsetTimeOriginal: "+00:00",
            ExifTags.Base.FocalLengthIn35mmFilm: 28,
        }
    )
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {
            ExifTags.GPS.GPSLatitudeRef: "N",
            ExifTags.GPS.GPSLatitude: _sexagesimal(latitude),
            ExifTags.GPS.GPSLongitudeRef: "E",
            ExifTags.GPS.GPSLongitude: _sexagesimal(longitude),
        }
    )
    return exif.tobytes()


def _position(drive: int, place: int) -> tuple[float, float]:
    """Metres east and north of the origin."""
    fifth, kind = divmod(drive, _COUNTRY_EVERY)
    if kind == _COUNTRY_EVERY - 1:  # south of the origin, a kilometre apart
        return place * _IN_COUNTRY_M, -2000.0 - 1000.0 * fifth
    street = fifth * (_COUNTRY_EVERY - 1) + kind
    row, column = divmod(street, _DRIVES_ABREAST)
    return column * DRIVE * _IN_TOWN_M + place * _IN_TOWN_M, row * _STREETS_M


def _sexagesimal(degrees: float) -> tuple[float, float, float]:
    whole = int(degrees)
    minutes = (degrees - whole) * 60
    return float(whole), float(int(minutes)), (minutes - int(minutes)) * 60


def made_up(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> NDArray[np.float32]:
    """Unit vectors (N, DIMENSION) that are alike within some 15 m: random Fourier features."""
    draw = np.random.default_rng(0)
    waves = draw.normal(0, 1 / _ALIKE_M, (2, DIMENSION)).astype(np.float32)
    phases = draw.uniform(0, 2 * np.pi, DIMENSION).astype(np.float32)
    metres = np.stack(
        [
            (longitude - _LONGITUDE) * _M_PER_DEGREE * np.cos(np.radians(_LATITUDE)),
            (latitude - _LATITUDE) * _M_PER_DEGREE,
        ],
        axis=1,
    )
    # Own noise: no two photographs of one place are the same.
    noise = np.sin(metres.sum(axis=1, keepdims=True) * 997.0 + np.arange(DIMENSION) * 3.7)
    vectors = np.cos((metres @ waves.astype(np.float64)) + phases) + 0.3 * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def write_empty_map(atlas: str) -> None:
    """In place of the stages verify to merge: no photograph has a pose."""
    file = storage.commit_table(atlas, layout.POSES, tables.POSES.empty_table())
    commit_entry(atlas, "merge", Task("model", NO_CELL, layout.POSES, ""), [file])


@dataclass(eq=False)
class MadeUpDescriptors(beam.PTransform):
    """In place of transforms.describe.DescribeImages: tasks -> entries of `descriptors/`."""

    root: str
    stage: str
    settings: ModelSettings

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.Map(self._describe)

    def _describe(self, task: Task) -> LedgerEntry:
        images = storage.read_table(
            storage.join(self.root, task.path("images")), ["image_id", "latitude", "longitude"]
        )
        vectors = made_up(images["latitude"].to_numpy(), images["longitude"].to_numpy())
        schema = tables.descriptors(DIMENSION, self.settings.name, "0" * 32)
        table = descriptor_table(images["image_id"].to_pylist(), list(vectors), schema)
        counts = {"images": table.num_rows, "rejects": 0}
        return commit_shard(self.root, self.stage, task, table, counts=counts)


class MadeUpWords(beam.PTransform):
    """In place of transforms.learn.LearnVocabulary: the sample is read, nothing is learnt."""

    def __init__(self, stage: str, reading: Any, settings: Any) -> None:
        super().__init__()
        self._stage, self._root = stage, reading.root

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.FlatMap(self._learn)

    def _learn(self, task: Task) -> Iterator[LedgerEntry]:
        sample: pa.Table = storage.read_table(storage.join(self._root, task.path("sample")))
        data = storage.combined_digest(sample["image_id"].to_pylist()).encode()
        file = storage.commit_file(self._root, task.output, data, 1)
        yield commit_entry(self._root, self._stage, task, [file])
