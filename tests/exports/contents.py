"""Features, matches and descriptors for the small atlas of `test_colmap`, which has poses alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.pipeline.test_unregistered import SHARDS, entry
from vladmap.features.base import LocalFeatures
from vladmap.features.colmap import pycolmap
from vladmap.features.registry import feature_kind
from vladmap.features.table import feature_table
from vladmap.schemas import tables

DIMENSION = 16


def write_contents(root: Path) -> None:
    """Commit SIFT at the keypoints of the model, the tracks of neighbours as matches, descriptors.

    Of each pair every second match is an inlier. The pairs of photographs 0 and 1 to 6 and 7 are
    trusted but the third, which is of another place.
    """
    rng = np.random.default_rng(5)
    model = pycolmap.Reconstruction(str(root / "model" / "0"))
    rows, points = [], []
    for image in sorted(model.images.values(), key=lambda image: image.name):
        places = np.array([point.xy for point in image.points2D], np.float32)
        count = len(places)
        shape = np.stack([rng.uniform(1, 9, count), rng.uniform(-3, 3, count)], axis=1)
        keypoints = np.concatenate([places, shape], axis=1).astype(np.float32)
        descriptors = rng.integers(0, 256, (count, 128)).astype(np.uint8)
        camera = model.camera(image.camera_id)
        size = camera.width, camera.height
        found = LocalFeatures(keypoints, descriptors, size)
        rows.append((f"id-{image.name}", *size, found))
        points.append(np.array([point.point3D_id for point in image.points2D], np.uint64))
    shard = SHARDS[0]
    table = feature_table(rows, feature_kind("sift"))
    entry(root, "features-sift", shard, f"features/sift/cell=none/{shard}.parquet", table)
    pairs = []
    for at in range(len(rows) - 1):
        _, first, second = np.intersect1d(points[at], points[at + 1], return_indices=True)
        matches = np.stack([first, second], axis=1)
        pairs.append(
            {"image_id_a": rows[at][0], "image_id_b": rows[at + 1][0],
             "configuration": "CALIBRATED", "matches": matches.tolist(),
             "inliers": matches[::2].tolist(), "verdict": "far" if at == 2 else "kept"}
        )  # fmt: skip
    views = pa.Table.from_pylist(pairs, schema=tables.TWO_VIEWS)
    entry(root, "verify", shard, f"two_views/{shard}.parquet", views)
    ids = sorted(pq.read_table(root / "images" / "cell=none" / f"{shard}.parquet")["image_id"]
                 .to_pylist())  # fmt: skip
    vectors = rng.normal(size=(len(ids), DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    schema = tables.descriptors(DIMENSION, "netvlad-lite", "made")
    described = pa.Table.from_arrays(
        [pa.array(ids), pa.array(vectors.astype(np.float32).tolist(), schema.field(1).type)],
        schema=schema,
    )
    path = f"descriptors/netvlad-lite/cell=none/{shard}.parquet"
    entry(root, "describe-netvlad-lite", shard, path, described)
    for stage in ("features-sift", "describe-netvlad-lite"):
        (root / "ledger" / stage / f"{SHARDS[1]}.json").unlink()
