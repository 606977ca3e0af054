"""LearnVocabulary and DescribeImages alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from PIL import Image

from tests.transforms.alone import CHANGED, MODEL, Atlas, describe, learn, organise, scan
from vladmap.atlas import layout
from vladmap.retrieval.descriptors import descriptor_matrix

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
