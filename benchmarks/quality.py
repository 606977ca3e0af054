"""How well the predicted errors of a map rank its true ones, against the truth of a rendered city.

    python -m benchmarks.quality ATLAS TRUTH [ATLAS TRUTH ...] [--damage]

Each ATLAS holds a rendered city (`vladmap sample`) up to `vladmap merge`, TRUTH is its
truth.parquet. True errors are distances from the truth after the best similarity of each model's
photographs that are not marked, or of all where fewer than three are left.
Printed are Spearman's rank correlation with `predicted_error_m` of poses.parquet, over the
photographs and over the medians of the tiles, for each atlas and over all of them; how many errors
are larger than predicted; and of the photographs over 1 m off, and of the others, how many are
marked (`doubt`). `--damage` moves photographs of the model by 2 to 20 m, some alone and one stretch
of street together with points of its own, and prints how many of the moved and of the others are
marked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import spearmanr

from vladmap.atlas import layout
from vladmap.atlas.atlas import Atlas
from vladmap.features.colmap import pycolmap
from vladmap.geodesy.wgs84 import geodetic_to_enu
from vladmap.mapping.arrays import Array
from vladmap.mapping.check import best_similarity
from vladmap.mapping.point_agreement import VIEW_COLUMNS
from vladmap.mapping.quality import qualities
from vladmap.mapping.tile_merge import IMAGE_COLUMNS
from vladmap.mapping.tile_model import read_model

_GEODETIC = ["latitude", "longitude", "altitude"]
_OFF_M = 1.0
_ALONE = 10
_STRETCH = 12


@dataclass(frozen=True)
class Errors:
    """Photographs of maps: true and predicted error in metres, whether marked, and their tile."""

    true: Array
    predicted: Array
    marked: np.ndarray
    tile: np.ndarray

    def __len__(self) -> int:
        return len(self.true)

    def lines(self) -> list[str]:
        """The figures, a line each."""
        off = self.true > _OFF_M
        names = np.unique(self.tile)
        over = self.true > self.predicted
        return [
            f"photographs {len(self)}, true error median {np.median(self.true):.3f} m, max "
            f"{self.true.max():.3f} m; predicted median {np.median(self.predicted):.3f} m, max "
            f"{self.predicted.max():.3f} m",
            f"rank correlation, photographs  {_rank(self.true, self.predicted)}",
            f"rank correlation, {len(names):3d} tiles    "
            + _rank(*(self._of_tiles(values, names) for values in (self.true, self.predicted))),
            f"larger than predicted {over.mean():.1%}, than twice that "
            f"{(self.true > 2 * self.predicted).mean():.1%}",
            f"over {_OFF_M:g} m off: {off.sum()}, of them marked {(off & self.marked).sum()}; "
            f"others marked: {(~off & self.marked).sum()} of {(~off).sum()}",
        ]

    def _of_tiles(self, values: Array, names: np.ndarray) -> Array:
        return np.array([np.median(values[self.tile == name]) for name in names])


def errors_of(folder: Path, truth: Path) -> Errors:
    """The errors of an atlas's photographs that have a predicted one."""
    poses, table = pq.read_table(folder / layout.POSES), pq.read_table(truth)
    poses = poses.filter(pa.array(poses["predicted_error_m"].is_valid()))
    row = {image: number for number, image in enumerate(table["image_id"].to_pylist())}
    truth_rows = table.take([row[image] for image in poses["image_id"].to_pylist()])
    origin = [float(table[name][0].as_py()) for name in _GEODETIC]
    source, target = (
        geodetic_to_enu(np.stack([each[name].to_numpy() for name in _GEODETIC], axis=1), origin)
        for each in (poses, truth_rows)
    )
    model = poses["model"].to_numpy()
    marked = np.array([doubt is not None for doubt in poses["doubt"].to_pylist()], bool)
    true = np.full(len(source), np.nan)
    for number in np.unique(model):
        rows = model == number
        if rows.sum() >= 3:
            by = rows & ~marked if (rows & ~marked).sum() >= 3 else rows
            scale, rotation, shift = best_similarity(source[by], target[by])
            moved = scale * source[rows] @ rotation.T + shift
            true[rows] = np.linalg.norm(moved - target[rows], axis=1)
    known = np.isfinite(true)
    tiles = _tiles(folder)
    return Errors(
        true[known],
        poses["predicted_error_m"].to_numpy()[known],
        marked[known],
        np.array([f"{folder} {tiles.get(each)}" for each in poses["image_id"].to_pylist()])[known],
    )


def _tiles(folder: Path) -> dict[str, str]:
    """The tile in whose core each photograph is."""
    found: dict[str, str] = {}
    for path in sorted((folder / "work").rglob("*.parquet")):
        schema = pq.read_schema(path)
        if "core" in schema.names:
            table = pq.read_table(path, columns=["image_id", "core"])
            core = table.filter(table["core"])
            found |= dict.fromkeys(core["image_id"].to_pylist(), path.stem)
    return found


def _rank(true: Array, predicted: Array) -> str:
    if len(true) < 3:
        return "not known of so few"
    return f"{spearmanr(true, predicted).statistic:.3f}"


def damaged(folder: Path, seed: int) -> list[str]:
    """Move photographs of the largest model and say how many of them are marked."""
    atlas = Atlas(folder)
    rows = atlas.images(IMAGE_COLUMNS).to_dict("records")
    by_name = {
        row["name"]: {key: None if value is None or value != value else value
                      for key, value in row.items()}
        for row in rows
    }  # fmt: skip
    origin = atlas.reconstructions()[0].origin
    tile = read_model(folder / layout.model_folder(0), "0", origin or (0.0, 0.0, 0.0), True)
    rng = np.random.default_rng(seed)
    numbers = np.array(sorted(tile.model.reg_image_ids()))
    start = int(rng.integers(0, len(numbers) - _STRETCH))
    stretch = numbers[start : start + _STRETCH]
    alone = rng.choice(np.setdiff1d(numbers, stretch), min(_ALONE, len(numbers) // 10), False)
    for number in alone.tolist():
        _moved(tile.model, [number], _shift(rng), with_points=False)
    _moved(tile.model, stretch.tolist(), _shift(rng), with_points=True)
    paths = sorted(folder.glob("two_views/*"))
    views = (pq.read_table(path, columns=VIEW_COLUMNS) for path in paths)
    found = qualities(tile, by_name, two_views=views)
    marked = {name for name, quality in found.items() if quality.doubt is not None}
    names = [{tile.model.image(int(each)).name for each in part} for part in (alone, stretch)]
    rest = set(found) - names[0] - names[1]
    return [
        f"moved alone {len(names[0])}, marked {len(names[0] & marked)}; moved together "
        f"{len(names[1])}, marked {len(names[1] & marked)}; marked of {len(rest)} others "
        f"{len(rest & marked)}"
    ]


def _shift(rng: np.random.Generator) -> Array:
    direction = rng.standard_normal(3) * [1.0, 1.0, 0.1]
    return np.asarray(rng.uniform(2.0, 20.0) * direction / np.linalg.norm(direction))


def _moved(
    model: pycolmap.Reconstruction, numbers: Sequence[int], shift: Array, *, with_points: bool
) -> None:
    """Move images; with points, all that they see becomes theirs alone and is moved with them."""
    tracks: dict[int, list[tuple[int, int]]] = {}
    for number in numbers:
        image = model.image(number)
        rotation = image.cam_from_world().rotation.matrix()
        centre = np.asarray(image.projection_center()) + shift
        model.frame(image.frame_id).rig_from_world = pycolmap.Rigid3d(
            pycolmap.Rotation3d(rotation), -rotation @ centre
        )
        for index in image.get_observation_point2D_idxs() if with_points else ():
            tracks.setdefault(image.points2D[index].point3D_id, []).append((number, index))
    for point_id, seen in tracks.items():
        place = model.point3D(point_id).xyz + shift
        for each in seen:
            if model.exists_point3D(point_id):
                model.delete_observation(*each)
        if len(seen) > 1:
            track = pycolmap.Track()
            track.add_elements([pycolmap.TrackElement(*each) for each in seen])
            model.add_point3D(place, track, np.zeros(3, np.uint8))


def main() -> None:
    """Print the figures of each atlas, and of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("atlas_and_truth", nargs="+", type=Path, metavar="ATLAS TRUTH")
    parser.add_argument("--damage", action="store_true")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    options = parser.parse_args()
    if len(options.atlas_and_truth) % 2:
        parser.error("each ATLAS needs its TRUTH")
    every = []
    for folder, truth in zip(*[iter(options.atlas_and_truth)] * 2, strict=True):
        every.append(errors_of(folder, truth))
        print(folder, *every[-1].lines(), sep="\n  ")
        if options.damage:
            print("", *damaged(folder, options.seed), sep="  ")
    if len(every) > 1:
        whole = Errors(
            *(np.concatenate([getattr(each, name) for each in every])
              for name in Errors.__dataclass_fields__)
        )  # fmt: skip
        print("all", *whole.lines(), sep="\n  ")


if __name__ == "__main__":
    main()
