from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.recall import main, recall_at
from tests.models.synthetic import photographs
from vladmap.models import DescriptorModel, InputSize, learning, load_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.base import batches, resize
from vladmap.models.checkpoints import vocabulary
from vladmap.models.checkpoints.vocabulary import Vocabulary
from vladmap.models.local import RootSiftFeatures, sample
from vladmap.models.recorded import filled
from vladmap.retrieval.vlad import vlad
from vladmap.schemas.rejects import UserError

PHOTOS = Path(os.environ.get("VLADMAP_PHOTOS", "../shared/photos"))


@pytest.fixture(scope="module")
def learnt() -> bytes:
    images = photographs(6, 320, 240)
    drawn = learning.sample_local_descriptors("netvlad-lite", None, images, 100, seed=0)
    return vocabulary.to_bytes(learning.fit("netvlad-lite", None, drawn, clusters=16))


@pytest.fixture(scope="module")
def lite(learnt: bytes) -> DescriptorModel:
    return load_model("netvlad-lite", learnt)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((640, 480), (448, 336)),
        ((480, 640), (336, 448)),
        ((5184, 3888), (448, 336)),
        ((400, 300), (400, 300)),
        ((99, 75), (320, 242)),
        ((320, 2), (320, 2)),
        ((100_000, 1), (448, 1)),
    ],
)
def test_the_long_side_is_brought_between_320_and_448(
    lite: DescriptorModel, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert lite.input_long_side(*size) == wanted
    assert lite.input_long_side(*wanted) == wanted


def test_an_image_of_the_input_size_is_not_resampled() -> None:
    image = photographs(1, 448, 336)[0]
    assert resize(image, (448, 336)) is image


def test_only_images_of_one_size_share_a_batch() -> None:
    images = [*photographs(3, 320, 240), *photographs(2, 240, 320), *photographs(1, 320, 240)]
    found = [(p, pixels.shape) for p, pixels in batches(images, InputSize(320, 448), 3)]
    assert found == [
        ([0, 1, 2], (3, 240, 320, 3)),
        ([5], (1, 240, 320, 3)),
        ([3, 4], (2, 320, 240, 3)),
    ]


def test_descriptors_are_unit_vectors_in_the_order_of_the_images(lite: DescriptorModel) -> None:
    images = [photographs(1, 320, 240)[0], photographs(1, 200, 300)[0], photographs(1, 500, 90)[0]]
    found = lite.describe(images)
    assert found.shape == (3, lite.spec.dimension) == (3, 16 * 112)
    assert found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert np.abs(lite.describe(images[::-1]) - found[::-1]).max() < 1e-5


def test_a_descriptor_does_not_depend_on_its_batch(lite: DescriptorModel) -> None:
    images = photographs(5, 400, 300)
    together = lite.describe(images)
    alone = np.concatenate([lite.describe([image]) for image in images])
    assert np.abs(together - alone).max() < 1e-5


def test_no_images_give_no_rows(lite: DescriptorModel) -> None:
    assert lite.describe([]).shape == (0, lite.spec.dimension)


def test_a_plain_image_has_a_finite_unit_descriptor(lite: DescriptorModel) -> None:
    found = lite.describe([np.zeros((240, 320, 3), np.uint8)])
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def test_what_is_no_rgb_image_is_refused(lite: DescriptorModel) -> None:
    with pytest.raises(ValueError, match="expected"):
        lite.describe([np.zeros((240, 320, 3), np.float32)])  # type: ignore[list-item]


@pytest.mark.parametrize(("precision", "cosine"), [("float16", 0.999), ("bfloat16", 0.999)])
def test_half_precision_stays_close_to_float32(
    learnt: bytes, lite: DescriptorModel, precision: str, cosine: float
) -> None:
    images = photographs(3, 320, 240)
    half = load_model("netvlad-lite", learnt, precision=precision)
    assert (half.describe(images) * lite.describe(images)).sum(axis=1).min() > cosine
    assert half.spec == lite.spec


City = tuple[list[np.ndarray], bytes, np.ndarray]


@pytest.fixture(scope="module")
def city(rendered_city: Path) -> City:
    """Photographs of a rendered city, words learnt from them, descriptors in float32."""
    paths = sorted(rendered_city.rglob("*.jpg"))
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    drawn = learning.sample_local_descriptors("netvlad-lite", None, images, 100, seed=0)
    words = vocabulary.to_bytes(learning.fit("netvlad-lite", None, drawn))
    return images, words, load_model("netvlad-lite", words).describe(images)


@pytest.mark.medium
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_keeps_the_neighbours_in_a_city(city: City, precision: str) -> None:
    images, words, exact = city
    half = load_model("netvlad-lite", words, precision=precision).describe(images)
    assert (exact * half).sum(axis=1).min() > 0.999
    nearest = [
        np.argsort(-(rows @ rows.T) + 2 * np.eye(len(rows)), axis=1)[:, :10]
        for rows in (exact, half)
    ]
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(*nearest, strict=True)]
    assert np.mean(shared) > 0.98


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_network_gives_the_descriptors_of_the_plain_one(
    learnt: bytes, lite: DescriptorModel
) -> None:
    compiled = load_model("netvlad-lite", learnt)
    assert isinstance(compiled, AggregatedModel)
    compiled.compile()
    images = [*photographs(2, 320, 240), *photographs(2, 240, 320)]
    assert np.abs(compiled.describe(images) - lite.describe(images)).max() < 1e-5
    assert torch._dynamo.utils.counters["frames"]["ok"] >= 2


def test_a_gpu_asked_for_and_absent_is_an_error(
    learnt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="GPU was asked for"):
        load_model("netvlad-lite", learnt, device="cuda")


@pytest.mark.medium
def test_black_images_that_fill_a_stack_are_no_results(
    lite: DescriptorModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where stacks of three images of two sizes are filled to four."""
    assert isinstance(lite, AggregatedModel)
    images = [*photographs(1, 320, 240), *photographs(2, 240, 320)]
    features, same_size = lite._features, images[1:]
    moved = features.moved

    def results() -> list[np.ndarray]:
        patches = lite.describe_with_patches(same_size, (5,))
        return [
            lite.describe(images),
            patches[0],
            *patches[1].descriptors,
            *features.extract(images),
        ]

    expected = results()
    monkeypatch.setattr(features, "moved", lambda pixels: filled(moved(pixels), 64))
    for one, other in zip(results(), expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_descriptors_of_the_cpu(learnt: bytes, lite: DescriptorModel) -> None:
    images = photographs(3, 320, 240)
    gpu = load_model("netvlad-lite", learnt, device="cuda")
    assert np.abs(gpu.describe(images) - lite.describe(images)).max() < 1e-4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "resnet"}, "unknown model"),
        ({"precision": "int8"}, "unknown precision"),
        ({"device": "tpu"}, "unknown device"),
        ({"checkpoint": None}, "needs a checkpoint"),
    ],
)
def test_wrong_arguments_are_one_clear_line(
    learnt: bytes, options: dict[str, str | None], says: str
) -> None:
    arguments = {"name": "netvlad-lite", "checkpoint": learnt, **options}
    with pytest.raises(UserError, match=says):
        load_model(**arguments)  # type: ignore[arg-type]


def test_vlad_sums_up_the_rootsift_of_an_image() -> None:
    features = RootSiftFeatures()
    # Corners, which SIFT finds: rectangles of random grey on a raster.
    blocks = np.random.default_rng(0).integers(0, 256, (12, 16, 1), dtype=np.uint8)
    image = np.asarray(
        Image.fromarray(blocks[:, :, 0]).resize((320, 240), Image.Resampling.NEAREST).convert("RGB")
    )
    drawn = sample(features, [image], 1000, seed=0)
    learnt = learning.fit("vlad", None, drawn, clusters=8)
    found = load_model("vlad", vocabulary.to_bytes(learnt)).describe([image, image * 0])
    assert found.shape == (2, 8 * 128)
    assert found[0] == pytest.approx(vlad(features.extract([image])[0], learnt.centres), abs=1e-6)
    assert not found[1].any()


def test_recall_counts_the_first_right_answer_and_leaves_no_query_out() -> None:
    database = np.eye(4, dtype=np.float32)
    queries = np.array(
        [[1, 0, 0, 0], [0.9, 0.8, 0, 0], [0, 0, 0, 1], [0.4, 0.3, 0.2, 0.1]], np.float32
    )
    assert recall_at(queries, database, 0) == {1: 25.0, 5: 100.0, 10: 100.0}
    assert recall_at(queries, database, 1) == {1: 75.0, 5: 100.0, 10: 100.0}


def test_the_benchmark_names_a_folder_without_photographs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--photos", str(tmp_path), "--set", "sped"]) == 2
    assert "no photographs in" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "recall"), [("sped", 75.0), ("gardens-point", 90.0)])
def test_recall_on_real_photographs(
    name: str, recall: float, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (PHOTOS / name).is_dir():
        pytest.skip(f"the photographs of {name} are not at hand: set VLADMAP_PHOTOS")
    assert main(["--photos", str(PHOTOS), "--set", name, "--seeds", "2"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert float(line.split()[3]) >= recall


def test_a_vocabulary_without_a_card_is_refused() -> None:
    empty = Vocabulary("netvlad-lite", "", 0, np.zeros((2, 3), np.float32))
    with pytest.raises(UserError, match="other weights of the backbone"):
        load_model("netvlad-lite", vocabulary.to_bytes(empty))
