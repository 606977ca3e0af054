"""How a collection is cut into tiles: how many, what is lost, and what stays as it grows.

    python -m benchmarks.tile_plans [--atlas ATLAS --bounds N N ...]

Grids of streets are made up: photographs 3 m apart, 3 m of GPS noise, pairs up to 15 m along a
street and half of those up to 12 m across. `--atlas` takes the judged pairs of an atlas instead,
after `vladmap reconstruct`. For each bound on the images of a tile it prints the tiles, also over
images / bound (1.5 at most, unless streets end otherwise), the images of all tiles over images, the
share of trusted pairs whose photographs are in different cores, the smallest and largest core, the
seconds of planning, and how many tiles of a city that lacks its northernmost (easternmost) eleventh
are the same in the whole one.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vladmap.atlas import layout
from vladmap.mapping.judging import trusted_only
from vladmap.mapping.tiles import Tile, plan_tiles

GRIDS = (
    (2000, 4, 500),
    (2000, 8, 200),
    (5000, 10, 500),
    (10_000, 12, 500),
    (20_000, 20, 1000),
    (100_000, 40, 1000),
)
METRES = 111_111.0  # in a degree of latitude


@dataclass(frozen=True)
class City:
    """n photographs and m pairs, the arguments of `plan_tiles`."""

    ids: NDArray[np.object_]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    pairs: NDArray[np.int64]

    def tiles(self, bound: int) -> list[Tile]:
        first, second = self.pairs.T
        weight = np.ones(len(first))
        return plan_tiles(
            self.ids.tolist(), self.latitude, self.longitude, first, second, weight, bound
        )

    def some(self, kept: NDArray[np.bool_]) -> City:
        row = np.cumsum(kept) - 1
        pairs = row[self.pairs[kept[self.pairs].all(axis=1)]]
        return City(self.ids[kept], self.latitude[kept], self.longitude[kept], pairs)


def grid(images: int, streets: int) -> City:
    """As many streets to the north as to the east, all of the same length."""
    rng = np.random.default_rng(0)
    length = images // (2 * streets)
    along = 3.0 * np.arange(length)
    across = 3.0 * length * (np.arange(streets) + 0.5) / streets
    east = np.stack(np.meshgrid(along, across), axis=-1).reshape(-1, 2)
    places = np.concatenate([east, east[:, ::-1]])
    street = np.repeat(np.arange(2 * streets), length)
    order = rng.permutation(len(places))  # ids say nothing of places
    places, street = places[order], street[order]
    pairs = cKDTree(places).query_pairs(15.1, output_type="ndarray")
    far = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1) >= 12.0
    same = street[pairs[:, 0]] == street[pairs[:, 1]]
    pairs = pairs[same | (~far & (rng.random(len(pairs)) < 0.5))]
    gps = places + rng.normal(0.0, 3.0, places.shape)
    ids = np.array([f"{row:08x}{0:024x}" for row in range(len(places))], object)
    return City(ids, 48.0 + gps[:, 1] / METRES, 16.0 + gps[:, 0] / (0.67 * METRES), pairs)


def judged_city(atlas: Path) -> City:
    """The photographs and trusted pairs of an atlas."""
    columns = ["image_id", "latitude", "longitude", "duplicate_of"]
    files = sorted((atlas / layout.IMAGES).rglob("*.parquet"))
    images = pa.concat_tables(pq.read_table(file, columns=columns) for file in files)
    images = images.filter(pc.is_null(images["duplicate_of"])).sort_by("image_id")
    ids = images["image_id"].combine_chunks()
    trusted = trusted_only(pq.read_table(atlas / layout.JUDGED))
    ends = [np.asarray(pc.index_in(trusted[f"image_id_{end}"], ids), np.int64) for end in "ab"]
    latitude, longitude = (
        images[name].to_numpy().astype(np.float64) for name in ("latitude", "longitude")
    )
    names = np.array(ids.to_pylist(), object)
    return City(names, latitude, longitude, np.stack(ends, axis=1))


def unchanged(city: City, tiles: list[Tile], bound: int, along: NDArray[np.float64]) -> str:
    """How many of the tiles of ten elevenths of a city are tiles of the whole."""
    now = {tile.name: tile.image_ids for tile in tiles}
    kept = ~(along > np.nanquantile(along, 10 / 11))
    before = city.some(kept).tiles(bound)
    same = sum(now.get(tile.name) == tile.image_ids for tile in before)
    return f"{same}/{len(before)}"


def line(name: str, city: City, bound: int) -> str:
    started = time.perf_counter()
    tiles = city.tiles(bound)
    seconds = time.perf_counter() - started
    core = np.full(len(city.ids), -1)
    for number, tile in enumerate(tiles):
        members = np.searchsorted(city.ids, np.array(tile.image_ids, object))
        core[members[tile.core]] = number
    images = int((core >= 0).sum())
    lost = float((core[city.pairs[:, 0]] != core[city.pairs[:, 1]]).mean())
    cores = [int(tile.core.sum()) for tile in tiles]
    mapped = sum(len(tile.image_ids) for tile in tiles) / images
    north = unchanged(city, tiles, bound, city.latitude)
    east = unchanged(city, tiles, bound, city.longitude)
    return (
        f"{name:>14} {bound:6d} {images:7d} {len(tiles):6d} {len(tiles) * bound / images:6.2f} "
        f"{mapped:6.2f} {100 * lost:6.2f} {min(cores):9d} {max(cores):8d} {seconds:8.2f} "
        f"{north:>7} {east:>7}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--atlas", type=Path, help="with judged pairs")
    parser.add_argument("--bounds", type=int, nargs="+", default=[150, 300], help="for --atlas")
    options = parser.parse_args()
    print(
        "          city  bound  images  tiles   over mapped lost % smallest   largest  seconds"
        "  same N  same E"
    )
    if options.atlas:
        for bound in options.bounds:
            print(line(options.atlas.name, judged_city(options.atlas), bound), flush=True)
        return
    for images, streets, bound in GRIDS:
        print(line(f"{images} on {2 * streets}", grid(images, streets), bound), flush=True)


if __name__ == "__main__":
    main()
