"""The sample collection: drives through a rendered city, as files with EXIF, with known truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.schemas.rejects import UserError
from vladmap.simulation.camera import Camera, Poses
from vladmap.simulation.city import City, build_city
from vladmap.simulation.conditions import Conditions
from vladmap.simulation.exif import Fix, exif_of, jpeg_of
from vladmap.simulation.queries import query_poses
from vladmap.simulation.render import render
from vladmap.simulation.route import drive
from vladmap.simulation.threads import one_torch_thread
from vladmap.simulation.truth import ORIGIN, truth_table

IMAGES_A_DRIVE = 120

_MOST_WORKERS = 16  # about 150 MB each
_SPEED = 8.0  # m/s
_FIRST_DAY = datetime(2024, 5, 21)
_HEADING_SIGMA_DEG = 1.0
_ALTITUDE_NOISE = 1.5  # times the horizontal noise
_QUERY_HOUR = 15.5


def write_sample(
    out: Path,
    images: int = 120,
    seed: int = 0,
    gps_sigma_m: float = 3.0,
    gps_dropout: float = 0.05,
    time_of_day: float = 10.5,
    device: str = "cpu",
    progress: Callable[[int], object] | None = None,
    queries: int = 0,
) -> None:
    """Render a collection with known truth.

    Writes `out`/images/drive-<k>/<n>.jpg, 640x480 JPEGs with EXIF, and `out`/truth.parquet
    (schemas.truth_tables; the ENU origin stands in its metadata). Around 120 images make a drive:
    a loop around a block whose end drives its beginning again; more images make more drives, in a
    larger city. From about 95 images a drive closes its loop.

    gps_sigma_m: standard deviation of each horizontal axis, independent from image to image; the
    altitude's is 1.5 times that. queries: so many photographs of the same streets on the next day,
    in the afternoon, go to `out`/queries/<n>.jpg, and their truth to `out`/queries.parquet.
    gps_dropout: the share of images without GPS tags. time_of_day:
    solar time in hours. progress: called with 1 after every image. The same
    arguments give the same bytes on the same machine and libraries.

    Raises UserError for arguments out of range and for an `out` that cannot be written or that
    already holds images.
    """
    _check(out, images, gps_sigma_m, gps_dropout, time_of_day)
    rng = np.random.default_rng([seed, 4])
    camera = Camera()
    conditions = Conditions.at(time_of_day)
    drives = max(1, round(images / IMAGES_A_DRIVE))
    across = int(np.ceil(np.sqrt(drives)))
    paths: list[str] = []
    poses: list[Poses] = []
    tags: list[Image.Exif] = []
    for number in range(drives):
        block = (number % across, number // across)
        count = images * (number + 1) // drives - images * number // drives
        # Neighbouring loops drive their common street the same way if they go around oppositely.
        route = drive(block, count, rng, clockwise=sum(block) % 2 == 0)
        start = _FIRST_DAY + timedelta(hours=time_of_day, minutes=20 * number)
        fixes = _fixes(route.poses, gps_sigma_m, gps_dropout, rng)
        for index, (fix, distance) in enumerate(zip(fixes, route.distance, strict=True)):
            paths.append(f"drive-{number}/{index:06d}.jpg")
            tags.append(exif_of(camera, start + timedelta(seconds=float(distance) / _SPEED), fix))
        poses.append(route.poses)
        (out / "images" / f"drive-{number}").mkdir(exist_ok=True)
    together = Poses(
        np.concatenate([each.centre for each in poses]),
        np.concatenate([each.rotation for each in poses]),
    )

    with _pictures_side_by_side(device) as pool:
        city = build_city(seed, (across, int(np.ceil(drives / across))), device)

        def photograph(index: int) -> None:
            picture = render(city, together[index : index + 1], camera, conditions)[0]
            (out / "images" / paths[index]).write_bytes(jpeg_of(picture.cpu().numpy(), tags[index]))

        photograph(0)  # alone: it computes the city's shadows, which the others share
        for _ in chain([None], pool.map(photograph, range(1, images))):
            if progress is not None:
                progress(1)
        if queries:
            asked, own = query_poses(together, queries), np.random.default_rng([seed, 5])
            fixes = _fixes(asked, gps_sigma_m, gps_dropout, own)
            _write_queries(out, city, camera, asked, fixes)
    pq.write_table(truth_table(paths, together, [camera] * images), out / "truth.parquet")


def _write_queries(
    out: Path, city: City, camera: Camera, poses: Poses, fixes: Sequence[Fix | None]
) -> None:
    """Photographs of the next afternoon, a minute apart, and where they were taken."""
    (out / "queries").mkdir(exist_ok=True)
    day, light = _FIRST_DAY + timedelta(days=1, hours=_QUERY_HOUR), Conditions.at(_QUERY_HOUR)
    paths = [f"queries/{index:06d}.jpg" for index in range(len(poses))]
    for index, (path, fix) in enumerate(zip(paths, fixes, strict=True)):
        picture = render(city, poses[index : index + 1], camera, light)[0]
        tags = exif_of(camera, day + timedelta(minutes=index), fix)
        (out / path).write_bytes(jpeg_of(picture.cpu().numpy(), tags))
    pq.write_table(truth_table(paths, poses, [camera] * len(paths)), out / "queries.parquet")


@contextmanager
def _pictures_side_by_side(device: str) -> Iterator[ThreadPoolExecutor]:
    """A pool that renders a picture a core, each on one thread.

    A picture is hundreds of small operations. Shared among torch's own threads, each of them would
    wait for the slowest thread: on a busy machine of two cores that was measured to be twelve
    times slower.
    """
    if torch.device(device).type != "cpu":
        with ThreadPoolExecutor(1) as pool:
            yield pool
        return
    workers = min(torch.get_num_threads(), _MOST_WORKERS)
    with (
        one_torch_thread(),
        ThreadPoolExecutor(workers, initializer=lambda: torch.set_num_threads(1)) as pool,
    ):
        yield pool


def _check(
    out: Path, images: int, gps_sigma_m: float, gps_dropout: float, time_of_day: float
) -> None:
    if images < 1:
        raise UserError(f"images must be 1 or more, not {images}")
    if gps_sigma_m < 0:
        raise UserError(f"the GPS noise must be 0 m or more, not {gps_sigma_m}")
    if not 0 <= gps_dropout <= 1:
        raise UserError(f"the share of images without GPS must be 0 to 1, not {gps_dropout}")
    if not 0 <= time_of_day < 24:
        raise UserError(f"the time of day must be 0 to 24 hours, not {time_of_day}")
    folder = out / "images"
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} already holds files: remove it, or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}") from error


def _fixes(
    poses: Poses, sigma: float, dropout: float, rng: np.random.Generator
) -> list[Fix | None]:
    noise = rng.normal(0.0, 1.0, (len(poses), 3)) * sigma * np.array([1.0, 1.0, _ALTITUDE_NOISE])
    places = enu_to_geodetic(poses.centre + noise, ORIGIN)
    headings = (poses.headings() + rng.normal(0.0, _HEADING_SIGMA_DEG, len(poses))) % 360.0
    lost = rng.random(len(poses)) < dropout
    return [
        None if gone else Fix(latitude, longitude, altitude, sigma, heading)
        for (latitude, longitude, altitude), heading, gone in zip(
            places.tolist(), headings.tolist(), lost, strict=True
        )
    ]
