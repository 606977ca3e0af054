"""Verify: local features of each image, then matches and two-view geometry of each pair.

Each is computed once and stored by shard. Features are not shuffled: a shard of pairs reads the
shards of features that its images lie in, two at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam

from vladmap.atlas import extracting, layout, storage
from vladmap.atlas.commit import commit_shard, reject_row
from vladmap.atlas.photographs import shard_rows
from vladmap.atlas.reading import How, ThreadReader, in_order
from vladmap.atlas.task_inputs import read_cameras
from vladmap.console import counter as progress
from vladmap.features.base import LocalFeatures, Matcher
from vladmap.features.names import NEAREST
from vladmap.features.products import multiplies_bytes
from vladmap.features.registry import feature_kind, load_matcher
from vladmap.features.table import feature_table
from vladmap.mapping.camera import Camera
from vladmap.mapping.camera_keys import IMAGE_COLUMNS, camera_keys
from vladmap.mapping.two_view import TwoView, two_view_table, verify
from vladmap.photos.headers.projection import PERSPECTIVE
from vladmap.photos.processes import WorkerDied, WorkerPool
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.schemas.rejects import PhotoError, RejectReason
from vladmap.transforms.counters import StageCounters
from vladmap.transforms.feature_shards import FeatureShards
from vladmap.transforms.second_look import SecondLook, load_second
from vladmap.weights.devices import CPU

STAGE = "verify"
AGAIN, GAINED = "again", "gained"
"""Counts of a shard: pairs that were tried again by features of a second kind, those that hold."""


@dataclass(eq=False)
class ExtractFeatures(beam.PTransform):
    """Tasks of image shards -> ledger entries of `features/`.

    `workers` extract at the same time, as processes or threads: the kind of features says which. A
    single process is the worker itself. Networks run on `device`.
    """

    root: str
    stage: str
    detector: str
    max_pixels: int
    workers: int
    device: str = "cpu"

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.ParDo(
            _Extract(
                self.root, self.stage, self.detector, self.max_pixels, self.workers, self.device
            )
        )


def _one_thread_a_call() -> None:
    """For networks, and for SIFT's nearest neighbours where torch makes these faster; what does
    without torch is spared its gigabyte."""
    from vladmap.models.memory import one_thread_a_call

    one_thread_a_call()


def _panorama(row: dict[str, Any]) -> PhotoError:
    """The reject of a panorama, which no camera model of COLMAP explains."""
    return PhotoError(
        RejectReason.PANORAMA,
        f"{row['projection']} projection, not the picture of one lens: it is searched, not mapped; "
        "to map the place, add views of 90 degrees or less cut from it; where that is wrong, a "
        "manifest's column `projection` says so",
    )


class _Extract(beam.DoFn):
    _reader: ThreadReader | None = None  # where photographs are read for a GPU

    def __init__(
        self,
        root: str,
        stage: str,
        detector: str,
        max_pixels: int,
        workers: int,
        device: str = "cpu",
    ) -> None:
        self._root, self._stage, self._detector = root, stage, detector
        self._max_pixels, self._workers, self._device = max_pixels, workers, device

    def setup(self) -> None:
        self._pool: WorkerPool | ThreadPoolExecutor | None = None
        kind = feature_kind(self._detector)
        if kind.device(self._device) != CPU:
            from vladmap.transforms.feature_batches import FeatureBatches  # brings torch

            # One thread computes, each further one would make the GPU's plans anew; others read.
            self._reader = ThreadReader(How(self._max_pixels), self._workers)
            self._batches = FeatureBatches(extracting.extractor(self._detector, self._device))
        elif kind.parallelism == "threads":
            _one_thread_a_call()  # the results do not depend on the number of cores
            self._pool = ThreadPoolExecutor(self._workers)
        elif self._workers > 1:
            self._pool = WorkerPool(self._workers)

    def teardown(self) -> None:
        if self._reader is not None:
            self._reader.close()
        if isinstance(self._pool, ThreadPoolExecutor):
            self._pool.shutdown()
        elif self._pool is not None:
            self._pool.close()

    def _outcomes(self, rows: list[dict[str, Any]]) -> Iterable[extracting.Extracted | WorkerDied]:
        """The outcome of each row of `images/`, in their order."""
        if self._reader is not None:
            return self._in_batches(self._reader, rows)
        extract = partial(
            extracting.extract_photo,
            detector=self._detector,
            max_pixels=self._max_pixels,
            device=self._device,
        )
        return map(extract, rows) if self._pool is None else self._pool.map(extract, rows)

    def _in_batches(
        self, reader: ThreadReader, rows: list[dict[str, Any]]
    ) -> Iterator[extracting.Extracted]:
        photos = in_order(reader, rows, 2 * self._workers)
        found = {
            photo.row["image_id"]: extracting.extracted(photo, features)
            for photo, features in self._batches.of(photos)
        }
        return (found[row["image_id"]] for row in rows)

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        extracted, rejects, rows = [], [], []
        for row in shard_rows(self._root, task.path(layout.IMAGES), ["projection"]):
            if row["projection"] == PERSPECTIVE:
                rows.append(row)
            else:
                rejects.append(reject_row(row["uri"], row["image_id"], STAGE, _panorama(row)))
                progress.advance()
        panoramas = len(rejects)
        for row, outcome in zip(rows, self._outcomes(rows), strict=True):
            features: LocalFeatures | None = None
            error: PhotoError | None
            if isinstance(outcome, WorkerDied):
                error = PhotoError(
                    RejectReason.CRASHED, "the process that looked for features in it died twice"
                )
            else:
                _, features, error = outcome
            if features is not None:
                extracted.append((row["image_id"], row["width"], row["height"], features))
            elif error is not None:
                rejects.append(reject_row(row["uri"], row["image_id"], STAGE, error))
            progress.advance()
        counters = StageCounters(STAGE)
        counters.add("images", len(extracted))
        counters.add("rejects", len(rejects))
        yield commit_shard(
            self._root,
            self._stage,
            task,
            feature_table(extracted, feature_kind(self._detector)),
            rejects,
            counts={"images": len(extracted), "rejects": len(rejects), "panoramas": panoramas},
        )


@dataclass(eq=False)
class VerifyPairs(beam.PTransform):
    """Tasks of pair shards -> ledger entries of `two_views/`; `matcher` matches the `features`.

    A network that matches runs on `device`. A task reads `pairs`, and `images` and `features` of
    every shard that its pairs touch. Where `second` names features, pairs between drives in which
    these find too little are tried again by them: see transforms.second_look.
    """

    root: str
    threads: int
    features: str
    matcher: str = NEAREST
    device: str = "cpu"
    second: str = ""

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | beam.ParDo(
            _Verify(self.root, self.threads, self.features, self.matcher, self.device, self.second)
        )


class _Verify(beam.DoFn):
    def __init__(
        self,
        root: str,
        threads: int,
        features: str,
        matcher: str,
        device: str = "cpu",
        second: str = "",
    ) -> None:
        self._root, self._threads, self._device = root, threads, device
        self._features, self._matcher_name, self._second_name = features, matcher, second

    def setup(self) -> None:
        if self._matcher_name != NEAREST or self._second_name or multiplies_bytes():
            _one_thread_a_call()  # a network's sums do not depend on the number of cores
        self._matcher = load_matcher(self._features, self._matcher_name, self._device)
        named = self._second_name
        self._second = load_second(named, self._device) if named else None

    def process(self, task: Task) -> Iterator[LedgerEntry]:
        pairs = storage.read_table(
            storage.join(self._root, task.path(layout.PAIRS)), ["image_id_a", "image_id_b"]
        )
        images = _Images(self._root, task)
        look = SecondLook(self._root, task, self._second) if self._second else None
        shard_of = images.features.shards
        groups: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        for a, b in zip(*(pairs[name].to_pylist() for name in pairs.column_names), strict=True):
            # An image that was rejected has no features, and takes no part.
            if a in shard_of and b in shard_of:
                low, high = sorted((shard_of[a], shard_of[b]))
                groups[low, high].append((a, b))
            else:
                progress.advance()
        views: list[TwoView] = []
        with ThreadPoolExecutor(self._threads) as pool:
            for shards, members in sorted(groups.items()):
                features = images.features.of(shards, {image for pair in members for image in pair})
                view = partial(
                    _view, features=features, cameras=images.cameras, matcher=self._matcher
                )
                found = list(pool.map(view, members))
                views.extend(look.at(found, features, images.cameras, pool) if look else found)
        views.sort(key=lambda view: (view.image_id_a, view.image_id_b))
        verified = sum(view.verified for view in views)
        counters = StageCounters(STAGE)
        counters.add("pairs", len(views))
        counters.add("verified", verified)
        counts = {"pairs": len(views), "verified": verified}
        if look:
            counts |= {AGAIN: look.again, GAINED: look.gained}
            for name in (AGAIN, GAINED):
                counters.add(name, counts[name])
        yield commit_shard(self._root, STAGE, task, two_view_table(views), counts=counts)


class _Images:
    """The images of a task's shards: the features and the camera of each."""

    def __init__(self, root: str, task: Task) -> None:
        self.features = FeatureShards(root, task.paths(layout.FEATURES))
        self.cameras: dict[str, Camera] = {}
        chosen = read_cameras(root, task)
        for path in task.paths(layout.IMAGES):
            images = storage.read_table(storage.join(root, path), IMAGE_COLUMNS)
            keys = camera_keys(images)
            for image, key in zip(images["image_id"].to_pylist(), keys, strict=True):
                if key in chosen:  # no camera is chosen for panoramas
                    self.cameras[image] = chosen[key]


def _view(
    pair: tuple[str, str],
    features: dict[str, LocalFeatures],
    cameras: dict[str, Camera],
    matcher: Matcher,
) -> TwoView:
    a, b = pair
    view = verify(
        a,
        b,
        features[a],
        features[b],
        matcher.match(features[a], features[b]),
        cameras[a],
        cameras[b],
        min_inlier_share=matcher.min_inlier_share,
    )
    progress.advance()
    return view
