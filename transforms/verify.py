"""Verify: local features once an image, matches and two-view geometry once a pair.

Both in Parquet, both by shard. Features never cross a shuffle: a shard of pairs reads the feature
shards that its images lie in, two at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import apache_beam as beam
import pyarrow as pa

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_shard, reject_row
from vladmap.atlas.photographs import Photo, load_photo, shard_rows
from vladmap.console import counter as progress
from vladmap.features.base import LocalFeatures, load_extractor
from vladmap.features.table import feature_table, read_features
from vladmap.mapping.camera import Camera
from vladmap.mapping.camera_keys import camera_keys
from vladmap.mapping.two_view import TwoView, match, two_view_table, verify
from vladmap.photos.processes import WorkerDied, WorkerPool
from vladmap.photos.projection import PERSPECTIVE
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.schemas.rejects import PhotoError, RejectReason
from vladmap.transforms.cameras import IMAGE_COLUMNS, read_cameras
from vladmap.transforms.counters import StageCounters

STAGE = "verify"


@dataclass(eq=False)
class ExtractFeatures(beam.PTransform):
    """Tasks of image shards -> ledger entries of `features/`.

    `processes` extract beside each other where the detector is COLMAP's, which holds the
    interpreter's lock; with 1 the work is done in the worker itself.
    """

    root: str
    stage: str
    detector: str
    max_pixels: int
    processes: int

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.ParDo(
            _Extract(self.root, self.stage, self.detector, self.max_pixels, self.processes)
        )


Extracted = tuple[dict[str, Any], LocalFeatures | None, PhotoError | None]


@lru_cache(maxsize=2)
def _extractor(detector: str) -> Any:
    return load_extractor(detector)


def extract_photo(row: dict[str, Any], detector: str, max_pixels: int) -> Extracted:
    """Features of one row of `images/`, or why there are none. Runs in a process of its own."""
    photo: Photo = load_photo(row, max_pixels)
    if photo.pixels is None:
        return row, None, photo.error
    found = _extractor(detector).extract(photo.pixels)
    if len(found) == 0:
        return row, None, PhotoError(RejectReason.NO_FEATURES, "no local feature in it")
    return row, found, None


def _panorama(row: dict[str, Any]) -> PhotoError:
    """No camera model explains such a picture: a map made with one would be silently wrong."""
    return PhotoError(
        RejectReason.PANORAMA,
        f"{row['projection']} projection, not the picture of one lens: it is searched, not mapped; "
        "to map the place, add views of 90 degrees or less cut from it; where that is wrong, a "
        "manifest's column `projection` says so",
    )


class _Extract(beam.DoFn):
    def __init__(
        self, root: str, stage: str, detector: str, max_pixels: int, processes: int
    ) -> None:
        self._root, self._stage, self._detector = root, stage, detector
        self._max_pixels, self._processes = max_pixels, processes

    def setup(self) -> None:
        apart = self._processes > 1 and self._detector == "sift"
        self._pool = WorkerPool(self._processes) if apart else None

    def teardown(self) -> None:
        if self._pool is not None:
            self._pool.close()

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        found, rejects = [], []
        rows = []
        for row in shard_rows(self._root, task.read("images"), ["projection"]):
            if row["projection"] == PERSPECTIVE:
                rows.append(row)
            else:
                rejects.append(reject_row(row["uri"], row["image_id"], STAGE, _panorama(row)))
                progress.advance()
        panoramas = len(rejects)
        extract = partial(extract_photo, detector=self._detector, max_pixels=self._max_pixels)
        apply = map if self._pool is None else self._pool.map
        for row, outcome in zip(rows, apply(extract, rows), strict=True):
            features: LocalFeatures | None = None
            error: PhotoError | None
            if isinstance(outcome, WorkerDied):
                error = PhotoError(
                    RejectReason.CRASHED, "the process that looked for features in it died twice"
                )
            else:
                _, features, error = outcome
            if features is not None:
                found.append((row["image_id"], row["width"], row["height"], features))
            elif error is not None:
                rejects.append(reject_row(row["uri"], row["image_id"], STAGE, error))
            progress.advance()
        counters = StageCounters(STAGE)
        counters.add("images", len(found))
        counters.add("rejects", len(rejects))
        yield commit_shard(
            self._root,
            self._stage,
            task,
            feature_table(found, _extractor(self._detector)),
            rejects,
            counts={"images": len(found), "rejects": len(rejects), "panoramas": panoramas},
        )


@dataclass(eq=False)
class VerifyPairs(beam.PTransform):
    """Tasks of pair shards -> ledger entries of `two_views/`.

    A task reads `pairs`, and `images/<shard>` and `features/<shard>` of every shard that its pairs
    touch.
    """

    root: str
    threads: int

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.ParDo(_Verify(self.root, self.threads))


class _Verify(beam.DoFn):
    def __init__(self, root: str, threads: int) -> None:
        self._root, self._threads = root, threads

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        pairs = storage.read_table(
            storage.join(self._root, task.read("pairs")), ["image_id_a", "image_id_b"]
        )
        images = _Images(self._root, task)
        groups: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        for a, b in zip(*(pairs[name].to_pylist() for name in pairs.column_names), strict=True):
            # An image whose features were rejected has nothing to match.
            if a in images.shards and b in images.shards:
                low, high = sorted((images.shards[a], images.shards[b]))
                groups[low, high].append((a, b))
            else:
                progress.advance()
        views: list[TwoView] = []
        with ThreadPoolExecutor(self._threads) as pool:
            for shards, members in sorted(groups.items()):
                features = images.features(shards, {image for pair in members for image in pair})
                views.extend(pool.map(partial(_view, features=features, images=images), members))
        views.sort(key=lambda view: (view.image_id_a, view.image_id_b))
        verified = sum(view.verified for view in views)
        counters = StageCounters(STAGE)
        counters.add("pairs", len(views))
        counters.add("verified", verified)
        counts = {"pairs": len(views), "verified": verified}
        yield commit_shard(self._root, STAGE, task, two_view_table(views), counts=counts)


class _Images:
    """Where the images of a task's shards lie, and their cameras."""

    def __init__(self, root: str, task: Task) -> None:
        self._root, self._task = root, task
        self.shards: dict[str, str] = {}
        self.cameras: dict[str, Camera] = {}
        self._loaded: dict[str, pa.Table] = {}
        chosen = read_cameras(root, task)
        for role, path in task.reads:
            kind, _, shard = role.partition("/")
            if kind == "features":
                ids = storage.read_table(storage.join(root, path), ["image_id"])["image_id"]
                self.shards.update(dict.fromkeys(ids.to_pylist(), shard))
            elif kind == "images":
                images = storage.read_table(storage.join(root, path), IMAGE_COLUMNS)
                for image, key in zip(
                    images["image_id"].to_pylist(), camera_keys(images), strict=True
                ):
                    if key in chosen:  # none is chosen for panoramas
                        self.cameras[image] = chosen[key]

    def features(self, shards: tuple[str, str], wanted: set[str]) -> dict[str, LocalFeatures]:
        """Features of the wanted images of two shards; the tables of others are let go."""
        self._loaded = {
            shard: self._loaded[shard]
            if shard in self._loaded
            else storage.read_table(
                storage.join(self._root, self._task.read(f"features/{shard}")),
                ["image_id", "keypoints", "descriptors"],
            )
            for shard in set(shards)
        }
        found: dict[str, LocalFeatures] = {}
        for table in self._loaded.values():
            found |= read_features(table, wanted)
        return found


def _view(pair: tuple[str, str], features: dict[str, LocalFeatures], images: _Images) -> TwoView:
    a, b = pair
    matches = match(features[a], features[b])
    view = verify(a, b, features[a], features[b], matches, images.cameras[a], images.cameras[b])
    progress.advance()
    return view
