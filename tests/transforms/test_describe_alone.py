"""LearnVocabulary and DescribeImages alone."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from apache_beam.utils.shared import Shared
from PIL import Image

from tests.transforms.alone import CHANGED, MODEL, Atlas, describe, files, learn, organise, scan
from vladmap.atlas import layout
from vladmap.atlas.reading import ProcessReader
from vladmap.models.computing import Computer
from vladmap.retrieval.descriptors import descriptor_matrix
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.transforms import describe as describe_module
from vladmap.transforms.describe import DescribeImages

pytestmark = pytest.mark.medium


@pytest.fixture
def with_changed(atlas: Atlas, tmp_path: Path) -> Atlas:
    """The atlas, and its photographs of which one was changed since ingest."""
    photos = tmp_path / "photos"
    shutil.copytree(atlas.photos, photos)
    changed = Atlas(atlas.root, photos)
    changed.run(scan)
    changed.run(organise)
    Image.new("RGB", (160, 120), "red").save(photos / CHANGED)
    return changed


def test_a_photograph_that_cannot_be_read_costs_itself_alone_in_learning(
    with_changed: Atlas, tmp_path: Path
) -> None:
    transform, tasks, _ = learn(with_changed)
    root = with_changed.root
    sample = root / layout.vocabulary_sample(MODEL)
    weights = root / layout.model_weights(MODEL)

    def learnt() -> dict[str, np.ndarray]:
        with_changed.run(lambda _: (transform, tasks, "vocabulary"))
        return safetensors.numpy.load(weights.read_bytes())

    with_bad = learnt()
    table = pq.read_table(sample)
    pq.write_table(table.filter([name != CHANGED for name in table["name"].to_pylist()]), sample)
    without = learnt()
    assert set(with_bad) == set(without)
    assert all(np.array_equal(with_bad[name], without[name]) for name in without)


def test_a_photograph_that_changed_since_ingest_costs_itself_alone(with_changed: Atlas) -> None:
    def by_image() -> dict[str, np.ndarray]:
        rows = {}
        for table in with_changed.tables("describe"):
            matrix = descriptor_matrix(table)
            rows |= dict(zip(table["image_id"].to_pylist(), matrix, strict=True))
        return rows

    before = by_image()
    entries, counters = with_changed.run(describe)
    after = by_image()
    ids = with_changed.ids()
    assert set(before) - set(after) == {ids[CHANGED]}
    assert all(np.array_equal(after[image], before[image]) for image in after)
    assert with_changed.rejects("describe")[CHANGED] == "changed"
    assert counters["vladmap.describe/rejects"] == 2
    assert sum(entry.counts["images"] for entry in entries.values()) == len(after) == 12


def described_with(atlas: Atlas, **settings: object) -> dict[str, bytes]:
    """The files that describing gives, the ledger's lines among them, by path."""
    transform, tasks, _ = describe(atlas)
    assert isinstance(transform, DescribeImages)
    transform.settings = replace(transform.settings, **settings)  # type: ignore[arg-type]
    for path in (*atlas.root.glob("descriptors/**/*.parquet"), *atlas.root.glob("**/describe/*")):
        if path.is_file():
            path.unlink()
    atlas.run(lambda _: (transform, tasks, "describe"))
    found = files(atlas.root)
    return {path: data for path, data in found.items() if "descri" in path}


def test_the_same_bytes_whatever_the_batches_and_whoever_reads(atlas: Atlas) -> None:
    """Shards of four photographs, batches of 1 to 64 that cross them, threads and processes."""
    expected = described_with(atlas, batch_size=1, threads=1)
    assert sum(path.endswith(".parquet") for path in expected) >= 4
    assert described_with(atlas, batch_size=3, threads=2) == expected
    assert described_with(atlas, batch_size=64, threads=3) == expected
    # Four processes that read go with two threads that write.
    assert described_with(atlas, batch_size=5, threads=2, processes=4) == expected


def test_what_computes_and_reads_outlives_shards_and_ends_with_the_pipeline(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[tuple[str, int]] = set()
    started: list[ProcessReader] = []
    guarded, made = Computer._guarded, ProcessReader.__init__

    def seen(self: Computer, *arguments: Any) -> None:
        threads.add((threading.current_thread().name, threading.get_ident()))
        guarded(self, *arguments)

    def kept(self: ProcessReader, *arguments: Any) -> None:
        started.append(self)
        made(self, *arguments)

    monkeypatch.setattr(Computer, "_guarded", seen)
    monkeypatch.setattr(ProcessReader, "__init__", kept)
    before = threading.active_count()
    described_with(atlas, batch_size=1, threads=1, processes=1)
    assert len(atlas.ledger("describe")) >= 4
    assert len(threads) == 1
    assert len(started) == 1
    assert started[0].running == []
    assert threading.active_count() <= before


def test_a_bundle_that_fails_and_is_tried_again_loses_nothing(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker, whose second shard cannot be committed at first: as Beam does, it is given the
    bundle again, with what the failed one left on its way still in its queues."""
    expected = described_with(atlas)
    transform, tasks, _ = describe(atlas)
    assert isinstance(transform, DescribeImages)
    for path in atlas.root.glob("descriptors/**/*.parquet"):
        path.unlink()
    commit, calls = describe_module.commit_described, []

    def fails_once(root: str, stage: str, task: Task, *others: Any) -> LedgerEntry:
        calls.append(task.shard)
        if len(calls) == 2:
            raise OSError("no space left on device")
        return commit(root, stage, task, *others)

    monkeypatch.setattr(describe_module, "commit_described", fails_once)
    worker = describe_module._Describe(
        transform.root, transform.stage, transform.settings, Shared()
    )
    worker.setup()

    def bundle() -> list[str]:
        worker.start_bundle()
        entries = [entry for task in tasks for entry in worker.process(task)]
        entries += [each.value for each in worker.finish_bundle()]
        return sorted(entry.shard for entry in entries)

    with pytest.raises(OSError, match="no space left"):
        bundle()
    assert bundle() == sorted(task.shard for task in tasks)
    worker.teardown()
    after = files(atlas.root)
    assert {path: after.get(path) for path in expected} == expected


def test_what_a_worker_could_not_start_is_started_by_the_next_setup(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform, tasks, _ = describe(atlas)
    assert isinstance(transform, DescribeImages)
    shared, made = Shared(), describe_module._Worker._new_reader

    def no_memory(self: object) -> None:
        monkeypatch.setattr(describe_module._Worker, "_new_reader", made)
        raise OSError("cannot allocate memory")

    monkeypatch.setattr(describe_module._Worker, "_new_reader", no_memory)
    arguments = (transform.root, transform.stage, transform.settings, shared)
    before, worker = threading.active_count(), describe_module._Describe(*arguments)
    with pytest.raises(OSError, match="cannot allocate"):
        worker.setup()
    worker.setup()
    worker.start_bundle()
    entries = [*worker.process(tasks[0])]
    entries += [each.value for each in worker.finish_bundle()]
    assert [entry.shard for entry in entries] == [tasks[0].shard]
    worker.teardown()
    assert threading.active_count() <= before
