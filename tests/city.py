"""A rendered city for tests, and the command that builds an atlas of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import ExifTags, Image

from vladmap.photos.ids import image_id
from vladmap.simulation.sample import write_sample

ROOT = Path(__file__).resolve().parents[1]
IMAGES = 24
SIZE = (480, 360)
SHARD_IMAGES = 16
TILE_IMAGES = 20


def write_city(folder: Path, images: int = IMAGES, seed: int = 0) -> None:
    """Render `images` photographs of 480x360 along one street: images/, truth.parquet.

    They are shrunk from those of `vladmap sample`, which halves the time of all that reads their
    pixels. Their second half is moved to a folder of its own, drive-1, so that there are two
    drives, whose ends overlap.
    """
    write_sample(folder, images=images, seed=seed)
    truth = pq.read_table(folder / "truth.parquet")
    paths = truth["path"].to_pylist()
    (folder / "images" / "drive-1").mkdir()
    for row in range(images // 2, images):
        moved = paths[row].replace("drive-0", "drive-1")
        (folder / "images" / paths[row]).rename(folder / "images" / moved)
        paths[row] = moved
    for path in paths:
        _shrink(folder / "images" / path)
    names = {"path": paths, "image_id": [image_id(path) for path in paths]}
    for name, values in names.items():
        place = truth.schema.get_field_index(name)
        truth = truth.set_column(place, truth.schema.field(name), pa.array(values))
    pq.write_table(truth, folder / "truth.parquet")


def _shrink(path: Path) -> None:
    """Bring a photograph to SIZE; its EXIF states the focal length of the smaller pixels."""
    with Image.open(path) as image:
        exif = image.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
        for axis, side in (("X", "Width"), ("Y", "Height")):
            details[ExifTags.Base[f"ExifImage{side}"]] = SIZE["XY".index(axis)]
            resolution = ExifTags.Base[f"FocalPlane{axis}Resolution"]
            details[resolution] = float(details[resolution]) * SIZE[0] / image.width
        image.resize(SIZE, Image.Resampling.LANCZOS).save(path, exif=exif, quality=92)


def build_command(city: Path, atlas: Path, *words: str) -> list[str]:
    """The command line that builds an atlas of a rendered city, in a process of its own."""
    return [sys.executable, "-m", "vladmap.jobs.main", *build_words(city, atlas, *words)]


def build_words(city: Path, atlas: Path, *words: str) -> list[str]:
    """The words of `vladmap` that build an atlas of a rendered city."""
    return [
        *("build", "--images", str(city / "images"), "--atlas", str(atlas)),
        *("--shard-images", str(SHARD_IMAGES), *words),
    ]


def build_atlas(city: Path, atlas: Path, *words: str) -> str:
    """Build an atlas of a rendered city; returns what the job wrote on both streams."""
    job = subprocess.run(
        build_command(city, atlas, *words), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert job.returncode == 0, job.stderr
    return job.stderr + job.stdout
