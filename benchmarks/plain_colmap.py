"""What COLMAP alone makes of a rendered city: the map to compare an atlas's with.

    python -m benchmarks.plain_colmap CITY [--mapper NAME ...] [--neighbours N] [--features N]

CITY is a folder of `vladmap sample`: images/ and truth.parquet. SIFT, pairs of photographs that are
near each other by GPS, COLMAP's own verification, and each mapper, with COLMAP's default options
but for the numbers named here and a camera for each folder. Prints the seconds of each step, and
for each mapper what `vladmap check-map` prints, without the errors by GPS: such a map has no place
on Earth. COLMAP's threads make its maps differ from run to run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vladmap.features.colmap import pycolmap
from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.mapping.check import check_map, format_check

MAPPERS: dict[str, Callable[..., dict[int, pycolmap.Reconstruction]]] = {
    "incremental": pycolmap.incremental_mapping,
    "global": pycolmap.global_mapping,
}


def poses_of(models: dict[int, pycolmap.Reconstruction], truth: pa.Table) -> pa.Table:
    """The poses of the images of all models, as far as `check_map` reads them."""
    known = dict(zip(truth["path"].to_pylist(), truth["image_id"].to_pylist(), strict=True))
    images, uris, numbers, centres, quaternions = [], [], [], [], []
    for number, model in sorted(models.items()):
        for image in model.images.values():
            if not image.has_pose:
                continue
            pose = image.cam_from_world()
            x, y, z, w = pose.rotation.quat
            images.append(known[image.name])
            uris.append(image.name)
            numbers.append(number)
            centres.append(image.projection_center())
            quaternions.append((w, x, y, z))
    # Any place in the city will do: errors are those after the best similarity.
    origin = [truth[name][0].as_py() for name in ("latitude", "longitude", "altitude")]
    places = enu_to_geodetic(np.reshape(centres, (-1, 3)), origin)
    columns = {"image_id": images, "uri": uris, "model": numbers}
    columns |= dict(zip(("latitude", "longitude", "altitude"), places.T.tolist(), strict=True))
    turns = np.reshape(quaternions, (-1, 4)).T.tolist()
    return pa.table(columns | dict(zip(("qw", "qx", "qy", "qz"), turns, strict=True)))


@contextmanager
def step(name: str) -> Iterator[None]:
    """A part of the work; prints its seconds, on the clock and of all cores."""
    started, processor = time.monotonic(), time.process_time()
    yield
    seconds, busy = time.monotonic() - started, time.process_time() - processor
    print(f"{name:<24}{seconds:7.0f} s, processors {busy:7.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("city", type=Path)
    parser.add_argument("--mapper", nargs="+", choices=[*MAPPERS], default=[*MAPPERS])
    parser.add_argument("--neighbours", type=int, default=50, help="pairs of a photograph at most")
    parser.add_argument("--features", type=int, default=2048, help="of a photograph at most")
    options = parser.parse_args()
    truth = pq.read_table(options.city / "truth.parquet")
    images = options.city / "images"
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "database.db")
        extraction = pycolmap.FeatureExtractionOptions()
        extraction.sift.max_num_features = options.features
        pairing = pycolmap.SpatialPairingOptions()
        pairing.max_num_neighbors = options.neighbours
        with step("features"):
            pycolmap.extract_features(
                database,
                images,
                camera_mode=pycolmap.CameraMode.PER_FOLDER,
                extraction_options=extraction,
                device=pycolmap.Device.cpu,
            )
        with step("pairs"):
            pycolmap.match_spatial(database, pairing_options=pairing, device=pycolmap.Device.cpu)
        for name in options.mapper:
            output = Path(folder, name)
            output.mkdir()
            with step(f"{name} mapper"):
                models = MAPPERS[name](database, images, output)
            poses = poses_of(models, truth)
            if poses.num_rows == 0:
                print(f"the {name} mapper made no model")
                continue
            lines = format_check(check_map(poses, truth)).splitlines()
            print("\n".join(line for line in lines if "by GPS" not in line), flush=True)


if __name__ == "__main__":
    main()
