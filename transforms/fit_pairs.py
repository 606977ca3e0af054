"""Fit pairs: the pose graph of the whole collection, and how each verified pair fits it.

One worker holds the keypoints and the inliers of all pairs; descriptors are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_shard
from vladmap.atlas.task_inputs import read_cameras, read_keypoints, read_tables
from vladmap.console import counter as progress
from vladmap.mapping.arrays import Array
from vladmap.mapping.camera_keys import IMAGE_COLUMNS as CAMERA_COLUMNS
from vladmap.mapping.camera_keys import camera_keys
from vladmap.mapping.two_view import two_views_of
from vladmap.mapping.view_graph.table import IMAGE_COLUMNS, JUDGED_IMAGES, fit_tables
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.transforms.counters import StageCounters

STAGE = "fit"

_COLUMNS = sorted({*IMAGE_COLUMNS, *CAMERA_COLUMNS, "duplicate_of"})
_VIEW_COLUMNS = [
    "image_id_a", "image_id_b", "configuration", "inliers",
    "qw", "qx", "qy", "qz", "tx", "ty", "tz",
]  # fmt: skip


@dataclass(eq=False)
class FitPairs(beam.PTransform):
    """One task that reads `images`, `features`, `two_views` and `cameras` -> `work/pair_fits`,
    `work/graph_poses`, `work/loop_fits`.

    Connected sets of fewer than `least` images are left out.
    """

    root: str
    gps_sigma_m: float
    least: int = JUDGED_IMAGES

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.ParDo(_Fit(self.root, self.gps_sigma_m, self.least))


class _Fit(beam.DoFn):
    def __init__(self, root: str, gps_sigma_m: float, least: int) -> None:
        self._root, self._gps_sigma_m, self._least = root, gps_sigma_m, least

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        cameras = read_cameras(self._root, task)
        keypoints = self._keypoints(task)
        images = self._images(task)
        keys = dict(zip(images["image_id"].to_pylist(), camera_keys(images), strict=True))
        # A photograph that was rejected in verify has no keypoints, and its camera may be unknown.
        usable = sorted(image for image in keypoints if keys.get(image) in cameras)
        images = images.filter(
            pc.is_in(images["image_id"], value_set=pa.array(usable, pa.string()))
        )
        within = pa.array(usable, pa.string())
        views, count = [], 0
        for table in read_tables(self._root, task, layout.TWO_VIEWS, _VIEW_COLUMNS):
            count += table.num_rows
            inside = two_views_of(table.filter(_among(table, within)))
            views += [view for view in inside if view.verified]
        camera_of = {image: cameras[keys[image]] for image in usable}
        fitted = fit_tables(
            images, views, keypoints.__getitem__, camera_of, self._gps_sigma_m, self._least
        )
        others = [
            storage.commit_table(self._root, path, table)
            for path, table in (
                (layout.GRAPH_POSES, fitted.graph.poses),
                (layout.LOOP_FITS, fitted.graph.loops),
            )
        ]
        counts = {
            "pairs": fitted.fits.num_rows,
            "loops": fitted.graph.loops.num_rows,
            "contradicting": fitted.contradicting,
        }
        for name, number in counts.items():
            StageCounters(STAGE).add(name, number)
        entry = commit_shard(self._root, STAGE, task, fitted.fits, counts=counts, others=others)
        progress.advance(max(1, count))
        yield entry

    def _images(self, task: Task) -> pa.Table:
        images = pa.concat_tables(read_tables(self._root, task, layout.IMAGES, _COLUMNS))
        return images.filter(pc.is_null(images["duplicate_of"])).sort_by("image_id")

    def _keypoints(self, task: Task) -> dict[str, Array]:
        return {
            image: np.asarray(features.keypoints[:, :2], np.float32)
            for image, features in read_keypoints(self._root, task).items()
        }


def _among(table: pa.Table, images: pa.Array) -> pa.Array:
    return pc.and_(
        pc.is_in(table["image_id_a"], value_set=images),
        pc.is_in(table["image_id_b"], value_set=images),
    )
