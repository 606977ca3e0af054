"""One collection, three callers of the same learning: a build, an evaluation and training."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.models.synthetic import photographs
from vladmap.atlas import storage
from vladmap.atlas.photographs import SHARD_ROWS
from vladmap.evaluation.learning import SampleReader, sample_of
from vladmap.models.backbones.registry import installed
from vladmap.models.checkpoints.vocabulary import from_bytes, to_bytes
from vladmap.models.learning import LearningSettings, learn, lowest_digests
from vladmap.models.training.trainable import learnt_aggregation
from vladmap.models.whitening import LEAST_REDUCED
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.files import read_photo
from vladmap.photos.ids import content_hash, image_id
from vladmap.schemas.records import NO_CELL, Task
from vladmap.transforms.learn import LearnVocabulary, Reading

pytestmark = pytest.mark.medium

COUNT = LEAST_REDUCED + 10  # several parts of 16, the last one short


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("collection")
    paths = []
    for n, pixels in enumerate(photographs(COUNT, 96, 72)):
        path = folder / f"drive{n % 3}" / f"{n:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    (folder / "drive1" / "004.png").write_bytes(b"no photograph")
    return paths


def learnt_by_a_build(settings: LearningSettings, collection: list[Path], root: Path) -> bytes:
    folder = collection[0].parents[1]
    rows = [
        {
            "image_id": image_id(path.relative_to(folder).as_posix()),
            "uri": str(path),
            "content_hash": content_hash(path.read_bytes()),
            "width": 96,
            "height": 72,
            "duplicate_of": None,
        }
        for path in collection
    ]
    rows.sort(key=lambda row: str(row["image_id"]))
    sample = pa.Table.from_pylist(rows[: settings.sample_images], schema=SHARD_ROWS)
    storage.commit_table(str(root), "work/sample.parquet", sample)
    task = Task("weights", NO_CELL, "model.safetensors", "", (("sample", "work/sample.parquet"),))
    with beam.Pipeline("FnApiRunner") as pipeline:
        tasks = pipeline | beam.Create([task])
        tasks | LearnVocabulary("learn", Reading(str(root), 2, 10**8), settings)
    return (root / "model.safetensors").read_bytes()


def learnt_by_an_evaluation(settings: LearningSettings, collection: list[Path]) -> bytes:
    sample = sample_of(collection[::-1], settings.sample_images)
    return to_bytes(learn(settings, SampleReader(sample, threads=2), len(sample)))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            LearningSettings("netvlad-lite", clusters=3, dimension=COUNT // 2, word_images=40),
            marks=pytest.mark.slow,
        ),
        LearningSettings(
            "netvlad-lite", clusters=3, seed=1, patch_size=2, patch_dimension=4, word_images=20
        ),
        LearningSettings("vlad", clusters=4, whiten=3, descriptors_an_image=50),
        LearningSettings("bovw", clusters=16, word_images=50),
    ],
    ids=["reduced", "patches", "whitened", "weighed"],
)
def test_a_build_and_an_evaluation_learn_the_same_file(
    settings: LearningSettings, collection: list[Path], tmp_path: Path
) -> None:
    """To the last byte, with a photograph that cannot be read, from paths in another order."""
    build = learnt_by_a_build(settings, collection, tmp_path)
    assert learnt_by_an_evaluation(settings, collection) == build
    vocabulary = from_bytes(build)
    assert (vocabulary.patch_whitening is None) == (not settings.patch_dimension)
    assert (vocabulary.whitening is None) == (not settings.whiten and not settings.dimension)
    assert (vocabulary.idf is None) == (settings.model != "bovw")


def test_training_starts_from_the_words_of_a_build(collection: list[Path]) -> None:
    settings = LearningSettings(
        "netvlad-imagenet", clusters=3, word_images=40, descriptors_an_image=30
    )
    words = from_bytes(learnt_by_an_evaluation(settings, collection)).centres
    backbone = installed()
    pixels = [
        decode_rgb(read_photo(path), target=backbone.preprocessing.size.target)
        for path in sample_of(collection, settings.word_images)
        if path.stat().st_size > 100
    ]
    parts = [pixels[start : start + 7] for start in range(0, len(pixels), 7)]
    start = learnt_aggregation("netvlad", backbone, parts, clusters=3, per_image=30)
    assert np.array_equal(start.centres.numpy(), words)


def test_the_sample_is_that_of_the_lowest_digests() -> None:
    """By `b2sum -l 128`: a 27c35e6e, b 96172b4c, c caec17f4."""
    assert [image_id(name)[:8] for name in "abc"] == ["27c35e6e", "96172b4c", "caec17f4"]
    assert lowest_digests(["a", "b", "c"], 2) == [0, 1]
    assert lowest_digests(["c", "b"], 9) == [1, 0]
