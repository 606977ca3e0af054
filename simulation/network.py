"""A street network and the drives through it, planned: where, when and with what each photograph
is taken, and what GPS says of it. `vladmap.simulation.photographing` renders the plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from vladmap.simulation.camera import Array, Camera, Poses
from vladmap.simulation.character import Character
from vladmap.simulation.city import City, build_city
from vladmap.simulation.exif import Fix
from vladmap.simulation.fisheye import Fisheye
from vladmap.simulation.journeys import SPACING, Journey, journey, moved
from vladmap.simulation.layout import Layout, draw_layout, streets_of
from vladmap.simulation.positioning import Positioning, position
from vladmap.simulation.walks import Network
from vladmap.simulation.weather import Weather, draw_weather

CHARACTER = Character(tree_spacing=14.0)
"""The sample city's, with trees before some of its houses."""

LENSES: dict[str, Camera | Fisheye] = {
    "standard": Camera(),
    "narrow": Camera(fx=773.0, fy=773.0),  # 45 degrees wide
    "wide": Camera(fx=293.0, fy=293.0),  # 95 degrees wide
    "fisheye": Fisheye(),  # 137 degrees wide
}
"""By the names in simulation.names.CAMERAS."""

_PASSES = 1.6  # how often a street is driven on average
_SLACK_M = 60.0  # walks are so much longer than their photographs need
_MOST_TRAFFIC = 0.6
_HOUR = timedelta(hours=10, minutes=30)
_DAYS = {
    "leaf": datetime(2024, 6, 11),
    "autumn": datetime(2024, 10, 22),
    "bare": datetime(2025, 1, 14),
}


@dataclass(frozen=True)
class NetworkSettings:
    """What a network's bytes depend on. simulation.names lists `cameras`, `gps`, `faults` and, as
    ALIGNED, `conditions`; cameras and conditions are taken by the drives in turn."""

    images: int = 1000
    seed: int = 0
    drives: int = 3
    blocks: tuple[int, int] | None = None  # of each city; None: as many as the drives need
    cameras: tuple[str, ...] = ("standard",)
    conditions: tuple[str, ...] = ("day",)
    repeated: float = 0.0  # share of the blocks
    terraces: float = 0.0  # share of the sides of the other blocks
    gps: str = "good"
    drives_without_gps: int = 0
    gps_shift_m: float = 0.0  # of one drive, eastwards
    faults: tuple[str, ...] = ()
    cities: int = 1
    cities_apart_m: float = 20_000.0


@dataclass(frozen=True)
class Place:
    """Everything that one city is made from."""

    seed: int
    blocks: tuple[int, int]
    repeated: float
    terraces: float

    @property
    def layout(self) -> Layout:
        return draw_layout(self.seed, self.blocks, self.repeated, self.terraces)

    def build(self, device: str = "cpu") -> City:
        return build_city(self.seed, self.blocks, device, CHARACTER, self.layout)


@dataclass(frozen=True, eq=False)
class Drive:
    """N photographs of one camera on one day. `journey` lies in the frame of its city, which is
    `east` metres from the origin. seconds: (N,) by the camera's clock, since `start`. seeds: (N,)
    of each photograph's noise."""

    name: str  # of its folder
    model: str  # of its camera, in EXIF
    place: Place
    east: float
    visit: int
    lens: str
    weather: Weather
    journey: Journey
    fixes: list[Fix | None]
    start: datetime
    seconds: Array
    seeds: NDArray[np.int64]
    quality: int = 92  # of the JPEGs

    def __len__(self) -> int:
        return len(self.journey)

    @property
    def camera(self) -> Camera | Fisheye:
        return LENSES[self.lens]

    @property
    def paths(self) -> list[str]:
        """Relative to the collection."""
        return [f"{self.name}/{index:06d}.jpg" for index in range(len(self))]

    @property
    def poses(self) -> Poses:
        """In the frame of the truth."""
        return moved(self.journey, self.east).poses

    def moment(self, row: int) -> datetime:
        return self.start + timedelta(seconds=float(self.seconds[row]))


def plan_network(settings: NetworkSettings) -> list[Drive]:
    """The drives without their faults. Drive k lies in city k modulo their number."""
    drives: list[Drive] = []
    for city in range(settings.cities):
        numbers = range(city, settings.drives, settings.cities)
        counts = [_images_of(settings, number) for number in numbers]
        blocks = settings.blocks or blocks_for(sum(counts))
        place = Place(settings.seed + city, blocks, settings.repeated, settings.terraces)
        network = Network(blocks, place.layout.closed, CHARACTER.pitch)
        for order, (number, count) in enumerate(zip(numbers, counts, strict=True)):
            drives.append(_drive(settings, place, network, city, order, number, count))
    return sorted(drives, key=lambda drive: drive.visit)


def blocks_for(images: int) -> tuple[int, int]:
    """How many blocks, east and north, have streets enough for so many photographs."""
    blocks = (1, 1)
    while _PASSES * _metres(blocks) < SPACING * images:
        blocks = (
            (blocks[0] + 1, blocks[1]) if blocks[0] <= blocks[1] else (blocks[0], blocks[1] + 1)
        )
    return blocks


def _metres(blocks: tuple[int, int]) -> float:
    return sum(CHARACTER.pitch[axis] for *_, axis in streets_of(blocks))


def _images_of(settings: NetworkSettings, number: int) -> int:
    images, drives = settings.images, settings.drives
    return images * (number + 1) // drives - images * number // drives


def _drive(
    settings: NetworkSettings,
    place: Place,
    network: Network,
    city: int,
    order: int,
    number: int,
    count: int,
) -> Drive:
    rng = np.random.default_rng([settings.seed, 62, number])
    way = (network.tour, network.laps, network.back)[order % 3]
    driven = journey(network, way(SPACING * count + _SLACK_M, rng), count, rng)
    condition = settings.conditions[number % len(settings.conditions)]
    weather = draw_weather(condition, np.random.default_rng([settings.seed, 63, number]))
    weather = replace(weather, traffic=min(weather.traffic, _MOST_TRAFFIC))
    lens = settings.cameras[number % len(settings.cameras)]
    east = city * settings.cities_apart_m
    got = _positions(settings, driven, number)
    return Drive(
        name=f"drive-{number}",
        model=f"Simulated {lens}",
        place=place,
        east=east,
        visit=number,
        lens=lens,
        weather=weather,
        journey=driven,
        fixes=got.fixes(moved(driven, east)),
        start=_DAYS[weather.season] + timedelta(days=number) + _HOUR,
        seconds=driven.seconds,
        seeds=np.random.default_rng([settings.seed, 65, number]).integers(0, 2**62, count),
    )


def _positions(settings: NetworkSettings, driven: Journey, number: int) -> Positioning:
    """What the receiver says. The last drives are those without GPS, and the one before them is
    the one with the shift."""
    blind = settings.drives - settings.drives_without_gps
    kind = "none" if number >= blind else settings.gps
    got = position(driven, kind, np.random.default_rng([settings.seed, 64, number]))
    if number == blind - 1:
        return replace(got, error=got.error + np.array([settings.gps_shift_m, 0.0, 0.0]))
    return got
