"""Renders the drives of a street network, in processes side by side, with their truth."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from vladmap.photos.processes import WorkerDied, WorkerPool
from vladmap.schemas.rejects import UserError
from vladmap.simulation.camera import Camera, Poses
from vladmap.simulation.city import City
from vladmap.simulation.conditions import Conditions
from vladmap.simulation.exif import exif_of, jpeg_of
from vladmap.simulation.faults import with_faults
from vladmap.simulation.fisheye import Fisheye, faces_of
from vladmap.simulation.lens import Lenses, expose
from vladmap.simulation.names import ALIGNED, CAMERAS, FAULTS, GPS
from vladmap.simulation.network import Drive, NetworkSettings, Place, plan_network
from vladmap.simulation.overlap import Sight, common_surfaces, sight_of
from vladmap.simulation.render import radiance
from vladmap.simulation.things import visit
from vladmap.simulation.threads import one_torch_thread
from vladmap.simulation.truth import truth_pairs_table, truth_table
from vladmap.simulation.weather import Weather

_SHOTS = 24  # photographs a task
_MOST_WORKERS = 16  # some 400 MB each
_FARTHEST_M = 50_000.0  # of the last city: true pairs are told in single precision
_CHANGED = 0.25  # of what may change from visit to visit


def write_network(
    out: Path,
    settings: NetworkSettings,
    *,
    device: str = "cpu",
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
    paired: Callable[[int], object] | None = None,
) -> tuple[int, int]:
    """Render a street network with known truth; returns the numbers of photographs and of pairs.

    Writes `out`/images/<drive>/<n>.jpg with EXIF, `out`/truth.parquet and `out`/truth_pairs.parquet
    (schemas.truth_tables): which pairs of photographs truly show the same surfaces. workers:
    processes, by default a core each, on a GPU one. progress, paired: called with how many more
    photographs are rendered, and compared with the others. The same settings give the same bytes on
    the same machine and libraries, with any number of workers.

    Raises UserError for settings out of range and for an `out` that cannot be written or that
    already holds images.
    """
    drives = drives_of(settings)
    _make_folders(out, drives)
    shots = [
        _Shots(out / "images", drive, range(start, min(start + _SHOTS, len(drive))), device)
        for drive in drives
        for start in range(0, len(drive), _SHOTS)
    ]
    sights: list[Sight] = []
    for each in _photographed(shots, device, workers):
        sights += each
        if progress is not None:
            progress(len(each))
    paths = [path for drive in drives for path in drive.paths]
    cameras = [drive.camera for drive in drives for _ in range(len(drive))]
    each_poses = [drive.poses for drive in drives]
    poses = Poses(
        np.concatenate([each.centre for each in each_poses]),
        np.concatenate([each.rotation for each in each_poses]),
    )
    pq.write_table(truth_table(paths, poses, cameras), out / "truth.parquet")
    common = common_surfaces(poses, cameras, sights, paired)
    pq.write_table(truth_pairs_table(paths, common, poses), out / "truth_pairs.parquet")
    return len(paths), len(common.pairs)


def drives_of(settings: NetworkSettings) -> list[Drive]:
    """The drives of a network with their faults; UserError for settings out of range."""
    check_network(settings)
    return with_faults(plan_network(settings), settings.faults)


def check_network(settings: NetworkSettings) -> None:
    """Raises UserError for settings that no network can have."""
    for what, names, known in (
        ("cameras", settings.cameras, CAMERAS),
        ("conditions", settings.conditions, ALIGNED),
        ("GPS", (settings.gps,), GPS),
        ("faults", settings.faults, FAULTS),
    ):
        unknown = sorted(set(names) - set(known))
        if unknown or (not names and what != "faults"):
            raise UserError(f"{unknown} are no {what}; there are {', '.join(known)}")
    if settings.seed < 0:
        raise UserError(f"the seed must be 0 or more, not {settings.seed}")
    if settings.cities < 1 or settings.drives < settings.cities:
        raise UserError(
            f"{settings.drives} drives cannot visit {settings.cities} cities: give a drive each"
        )
    if settings.cities > 1 and not 1500 <= settings.cities_apart_m <= _FARTHEST_M / (
        settings.cities - 1
    ):
        raise UserError(
            f"cities must be 1.5 km apart or more, and all within {_FARTHEST_M / 1000:g} km: "
            f"{settings.cities} cities cannot be {settings.cities_apart_m:g} m apart"
        )
    if settings.images < settings.drives:
        raise UserError(f"{settings.drives} drives need a photograph each: --images is too small")
    if not 0 <= settings.drives_without_gps <= settings.drives:
        raise UserError(
            f"of {settings.drives} drives, {settings.drives_without_gps} cannot lack GPS"
        )
    for share in (settings.repeated, settings.terraces):
        if not 0 <= share <= 1:
            raise UserError(f"a share must be from 0 to 1, not {share}")
    if settings.blocks is not None and min(settings.blocks) < 1:
        raise UserError(f"a city needs a block or more each way, not {settings.blocks}")
    if "borrowed" in settings.faults and settings.drives < 2:
        raise UserError("a drive can borrow another's positions only where there are two")


def _make_folders(out: Path, drives: Sequence[Drive]) -> None:
    folder = out / "images"
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} already holds files: remove it, or choose another folder")
    try:
        for drive in drives:
            (folder / drive.name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}") from error


@dataclass(frozen=True, eq=False)
class _Shots:
    """Some photographs of a drive, to be rendered by one process."""

    folder: Path
    drive: Drive
    rows: range
    device: str


def _photographed(
    shots: Sequence[_Shots], device: str, workers: int | None
) -> Iterator[list[Sight]]:
    """What each photograph shows, of all shots in their order."""
    on_cpu = torch.device(device).type == "cpu"
    usual = min(_MOST_WORKERS, len(os.sched_getaffinity(0))) if on_cpu else 1
    count = min(workers or usual, len(shots))
    if count == 1:
        yield from map(_photograph, shots)
        return
    pool = WorkerPool(count)
    try:
        for done in pool.map(_photograph, shots):
            if isinstance(done, WorkerDied):
                raise UserError(f"a process that renders died ({done}): try fewer --workers")
            yield done
    finally:
        pool.close()


def _photograph(shots: _Shots) -> list[Sight]:
    """Write the photographs; returns what each shows."""
    drive = shots.drive
    lenses = _lenses(drive)
    sights = []
    with one_torch_thread(torch.device(shots.device).type == "cpu"):
        city = _visited(drive.place, drive.visit, drive.weather, shots.device)
        for row in shots.rows:
            pose = drive.journey.poses[row : row + 1]
            # One by one: in a batch, rounding would depend on how the work was divided.
            light = light_of(city, pose, drive.camera, drive.weather.light)
            picture = expose(light[None], lenses[row : row + 1])[0].cpu().numpy()
            tags = exif_of(drive.camera, drive.moment(row), drive.fixes[row], drive.model)
            path = shots.folder / drive.paths[row]
            path.write_bytes(jpeg_of(picture, tags, drive.quality))
            sights.append(sight_of(city, pose, drive.camera))
    return sights


def light_of(
    city: City, pose: Poses, camera: Camera | Fisheye, conditions: Conditions
) -> torch.Tensor:
    """(3, H, W) linear light that a camera at one pose receives, as `radiance` measures it."""
    if isinstance(camera, Camera):
        return radiance(city, pose, [camera], conditions)[0]
    faces = faces_of(camera)
    return faces.blended(radiance(city, faces.poses(pose), [faces.camera] * 3, conditions))


def _lenses(drive: Drive) -> Lenses:
    """A still camera without distortion, whose exposure follows the light."""
    count = len(drive)
    none: NDArray[np.float64] = np.zeros(count)
    rng = np.random.default_rng(drive.seeds[:1])
    weather = drive.weather
    dark = weather.light.day < 0.2
    return Lenses(
        exposure=np.full(count, weather.exposure),
        white=np.tile(np.exp(rng.normal(0.0, 0.03, 3)), (count, 1)),
        saturation=np.ones(count),
        contrast=np.ones(count),
        distortion=none,
        vignette=none,
        focus=np.full(count, 0.3),
        motion=none,
        motion_deg=none,
        noise=np.full(count, 0.02 if dark else 0.006),
        bloom=np.full(count, 0.06 if dark else 0.0),
        flakes=np.full(count, weather.flakes),
        streaks=np.full(count, weather.streaks),
        seeds=drive.seeds,
    )


@lru_cache(maxsize=1)
def _built(place: Place, device: str) -> City:
    return place.build(device)


@lru_cache(maxsize=1)
def _visited(place: Place, number: int, weather: Weather, device: str) -> City:
    """The city on the day of a drive. Its lanes are free: the cameras drive there."""
    changes = _CHANGED if number else 0.0
    return visit(_built(place, device), weather, number, changes=changes, moving=False)
