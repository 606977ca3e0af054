"""Training data: cities from seeds, each with several drives on different days.

Written in the layout that evaluations of place recognition use: photographs whose names say where
they were taken, `images/<split>/{database,queries}`.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vladmap.geodesy.utm import band_of, to_utm, zone_of
from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.photos.processes import end_with_parent, uninterrupted
from vladmap.schemas.rejects import UserError
from vladmap.simulation.camera import Array, Camera, Poses
from vladmap.simulation.character import draw_character
from vladmap.simulation.city import City, build_city
from vladmap.simulation.lens import draw_lenses, expose
from vladmap.simulation.names import CONDITIONS, MOST_SEED, SPLITS
from vladmap.simulation.render import radiance
from vladmap.simulation.streets import Rig, Stretches, blocks_for, draw_rig, draw_stretches, look
from vladmap.simulation.things import visit
from vladmap.simulation.threads import one_torch_thread
from vladmap.simulation.weather import Weather, draw_weather

_BATCH = 16
_BENT = -0.05  # k1 of the lenses that see places aligned
_LEAVES = 320  # clusters of leaves of a near tree
_DATES = {"leaf": "20240612", "autumn": "20241028", "bare": "20250115"}


@dataclass(frozen=True)
class _World:
    """Everything that the files of a world depend on."""

    seed: int
    split: str
    places: int
    conditions: tuple[str, ...]
    queries: tuple[str, ...]
    query_places: int
    size: tuple[int, int]
    gps_sigma_m: float
    aligned: bool = False
    every: int = 1


@dataclass(frozen=True, eq=False)
class Visit:
    """The photographs of one drive under one condition; `part`: database or queries."""

    part: str
    condition: str
    weather: Weather
    poses: Poses
    cameras: list[Camera]
    rng: np.random.Generator  # of the lenses


def write_worlds(
    out: Path,
    seeds: Sequence[int],
    split: str = "train",
    places: int = 100,
    conditions: Sequence[str] = ("day",),
    queries: Sequence[str] = CONDITIONS,
    *,
    query_places: int | None = None,
    size: tuple[int, int] = (320, 240),
    gps_sigma_m: float | None = None,
    aligned: bool = False,
    every: int = 1,
    device: str = "cpu",
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Render a world a seed into `out`/images/`split`/{database,queries}.

    The database: `places` photographs some 5 m apart along the streets of a world, both ways, for
    each of `conditions`. The queries: `query_places` (by default half as many) of the same streets
    for each condition in `queries`, anywhere along them, by other cameras. Each lies kilometres
    from the other worlds. Names give the place as a GPS receiver does, `gps_sigma_m` (standard
    deviation of each axis; by default 3 for train and val, 0 for test) from the truth; their note
    is the condition.

    With `aligned` the database shows each place from the very same camera under all of
    `conditions`, pixel on pixel; its number, `p` in the name, is the place's. Of the places of the
    database each `every`-th is kept, for more streets than photographs.

    A world that `out` holds already is left as it is, so that a killed run goes on. progress:
    called with the number of photographs that are done. workers: processes (by default a core
    each; one on a GPU). The same arguments give the same bytes on the same machine and libraries.

    Raises UserError for arguments out of range, and where `out` holds a world of the same seed
    that was made with other arguments.
    """
    sigma = gps_sigma_m if gps_sigma_m is not None else (0.0 if split == "test" else 3.0)
    half = query_places if query_places is not None else max(1, places // 2)
    if not conditions or (not queries and not aligned):
        raise UserError("the database and the queries need at least one condition each")
    _check(seeds, split, places, half, (*conditions, *queries), size, sigma)
    if not 1 <= every <= places:
        raise UserError(f"of {places} places each {every}th cannot be kept")
    worlds = [
        _World(
            seed,
            split,
            places,
            tuple(conditions),
            tuple(queries),
            half,
            size,
            sigma,
            aligned,
            every,
        )
        for seed in seeds
    ]
    report = progress or (lambda count: None)
    left = []
    for world in worlds:
        if _is_done(out, world):
            report(images_a_world(places, half, conditions, queries, every))
        else:
            left.append(world)
    for part in ("database", "queries"):
        (out / "images" / split / part).mkdir(parents=True, exist_ok=True)
    (out / "worlds").mkdir(exist_ok=True)
    on_cpu = torch.device(device).type == "cpu"
    count = min(workers or (os.cpu_count() or 1 if on_cpu else 1), len(left))
    if count <= 1:
        with one_torch_thread(on_cpu):
            for world in left:
                _write_world(out, world, device, report)
        return
    # Spawned, not forked: a fork of a process that used torch's threads may hang.
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _begin) as pool:
        with uninterrupted():
            pending = [pool.submit(_write_world, out, world, device) for world in left]
        for done in as_completed(pending):
            report(done.result())


def _begin() -> None:
    end_with_parent()
    torch.set_num_threads(1)


def images_a_world(
    places: int,
    query_places: int,
    conditions: Sequence[str],
    queries: Sequence[str],
    every: int = 1,
) -> int:
    return -(-places // every) * len(conditions) + query_places * len(queries)


def origin_of(seed: int) -> tuple[float, float, float]:
    """Latitude, longitude and height of a world's origin: 4 km or more from all others."""
    return 44.0 + 0.05 * (seed % 100), 9.0 + 0.06 * (seed // 100), 0.0


def build_world(seed: int, places: int, device: str = "cpu") -> City:
    """The city of a world with streets enough for `places` photographs."""
    character = draw_character(seed)
    blocks = blocks_for(places, character)
    city = build_city(seed, blocks, device, character)
    # Trees that the cameras come near are made of more leaves.
    away = _stretches(seed, places).distance(city.trees[:, :2])
    trees = city.trees.copy()
    trees[:, -1] = np.select([away < 16.0, away < 40.0], [_LEAVES, _LEAVES // 3], 24)
    return replace(city, trees=trees)


def _stretches(seed: int, places: int) -> Stretches:
    character = draw_character(seed)
    rng = np.random.default_rng([seed, 51])
    return draw_stretches(blocks_for(places, character), character, places, rng)


def plan_visits(
    seed: int,
    places: int,
    conditions: Sequence[str],
    queries: Sequence[str],
    query_places: int,
    size: tuple[int, int],
) -> Iterator[Visit]:
    """The drives through a world: first the database's, then the queries', a condition each."""
    stretches = _stretches(seed, places)
    first = draw_rig(np.random.default_rng([seed, 54]))
    for part, names in (("database", conditions), ("queries", queries)):
        for condition in names:
            # A condition's drive does not depend on which others there are.
            key = [seed, 52, part == "queries", CONDITIONS.index(condition)]
            rng = np.random.default_rng(key)
            weather = draw_weather(condition, rng)
            rig: Rig = first
            if part == "queries":
                rig = draw_rig(rng, first, shifted=condition == "viewpoint")
            count, draw = (places, None) if part == "database" else (query_places, rng)
            stretch, along = stretches.places(count, draw)
            poses, cameras = look(stretches, stretch, along, rig, size, rng)
            yield Visit(part, condition, weather, poses, cameras, rng)


def name_of(
    seed: int, number: int, enu: Array, heading: float, condition: str, date: str = ""
) -> str:
    """The file name of a photograph of a world, taken at (3,) east, north, up metres from its
    origin."""
    latitude, longitude, _ = enu_to_geodetic(np.array([enu * [1, 1, 0]]), origin_of(seed))[0]
    zone = zone_of(longitude)
    east, north = to_utm(latitude, longitude, zone)
    fields = (
        f"{east:.3f}", f"{north:.3f}", f"{zone:02d}", band_of(latitude), f"{latitude:.8f}",
        f"{longitude:.8f}", f"w{seed:04d}-p{number:05d}", "", f"{heading:.1f}", "", "",
        f"{enu[2]:.1f}", date, condition,
    )  # fmt: skip
    return "@" + "@".join(fields) + "@.jpg"


def _write_world(
    out: Path, world: _World, device: str, report: Callable[[int], object] | None = None
) -> int:
    """Render a world; returns the number of its photographs."""
    city = build_world(world.seed, world.places, device)
    number, first = 0, None
    gps = np.random.default_rng([world.seed, 53])
    visits = plan_visits(
        world.seed, world.places, world.conditions, world.queries, world.query_places, world.size
    )
    for order, drive in enumerate(visits):
        if drive.part == "database":
            if world.aligned:
                first, number = first or drive, 0
                drive = replace(drive, poses=first.poses, cameras=first.cameras)
            drive = replace(
                drive,
                poses=drive.poses[:: world.every],
                cameras=drive.cameras[:: world.every],
            )
        folder = out / "images" / world.split / drive.part
        there = visit(city, drive.weather, 100 * order + CONDITIONS.index(drive.condition))
        noise = gps.normal(0.0, 1.0, (len(drive.poses), 4)) * world.gps_sigma_m
        heading = (drive.poses.headings() + noise[:, 3]) % 360.0
        date = _DATES[drive.weather.season]
        for row, jpeg in enumerate(_photographs(there, drive, _BENT if world.aligned else None)):
            enu = drive.poses.centre[row] + [*noise[row, :2], 0.0]
            name = name_of(world.seed, number, enu, float(heading[row]), drive.condition, date)
            (folder / name).write_bytes(jpeg)
            number += 1
            if report is not None:
                report(1)
    _ledger(out, world).write_text(json.dumps(asdict(world)) + "\n")
    return number


def _photographs(city: City, drive: Visit, bent: float | None = None) -> Iterator[bytes]:
    """JPEG files; `bent` is the distortion of every lens, in place of one drawn."""
    weather, rng = drive.weather, drive.rng
    lenses = draw_lenses(
        len(drive.poses),
        rng,
        exposure=weather.exposure,
        dark=weather.light.day < 0.2,
        flakes=weather.flakes,
        streaks=weather.streaks,
    )
    if bent is not None:
        lenses = replace(lenses, distortion=np.full(len(lenses), bent))
    quality = int(rng.integers(55, 95))
    for start in range(0, len(drive.poses), _BATCH):
        rows = slice(start, start + _BATCH)
        light = radiance(city, drive.poses[rows], drive.cameras[rows], weather.light)
        for picture in expose(light, lenses[rows]).cpu().numpy():
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
            yield buffer.getvalue()


def _ledger(out: Path, world: _World) -> Path:
    return out / "worlds" / f"{world.split}-w{world.seed:04d}.json"


def _is_done(out: Path, world: _World) -> bool:
    """Whether `out` holds a world; what a killed run left of it is removed."""
    ledger = _ledger(out, world)
    if ledger.exists():
        made = {"aligned": False, "every": 1} | json.loads(ledger.read_text())
        if made != json.loads(json.dumps(asdict(world))):
            raise UserError(
                f"{ledger} says that world {world.seed} was made with other options: "
                "choose another folder, or other seeds"
            )
        return True
    for part in ("database", "queries"):
        for path in (out / "images" / world.split / part).glob(f"@*@w{world.seed:04d}-p*"):
            path.unlink()
    return False


def _check(
    seeds: Sequence[int],
    split: str,
    places: int,
    query_places: int,
    conditions: Sequence[str],
    size: tuple[int, int],
    sigma: float,
) -> None:
    if split not in SPLITS:
        raise UserError(f"the split must be one of {', '.join(SPLITS)}, not {split!r}")
    if not seeds:
        raise UserError("no seeds: give a range such as 0:40")
    if min(seeds) < 0 or max(seeds) > MOST_SEED or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds must be 0 to {MOST_SEED}, each once")
    if places < 1 or query_places < 1:
        raise UserError("places and query places must be 1 or more")
    unknown = sorted(set(conditions) - set(CONDITIONS))
    if unknown:
        raise UserError(f"{unknown} are no conditions; there are {', '.join(CONDITIONS)}")
    if min(size) < 16 or max(size) > 4096:
        raise UserError(f"a picture must have 16 to 4096 pixels a side, not {size}")
    if not 0 <= sigma < 1000:
        raise UserError(f"the GPS noise must be 0 m or more, not {sigma}")
