"""Batches that are filled across callers and computed by threads that stay."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.models.synthetic import photographs
from tests.models.test_encoded import jpeg, known, libjpeg
from vladmap.models import batches as batches_module
from vladmap.models import computing as computing_module
from vladmap.models import learning, load_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.base import DescriptorModel, Floats, ModelSpec, Pixels
from vladmap.models.batches import BatchDescriber, Ticket
from vladmap.models.checkpoints import vocabulary
from vladmap.models.computing import Description
from vladmap.photos.decoding.encoded import Encoded
from vladmap.retrieval.stored_patches import stored
from vladmap.schemas.rejects import PhotoError
from vladmap.weights.preprocessing import InputSize


class Means(DescriptorModel):
    """Describes an image by its mean grey; keeps the sizes of batches and who computed them."""

    def __init__(self, refuse: float = -1.0) -> None:
        self.spec = ModelSpec("means", 1, (), InputSize(1, 64), "f")
        self.batches: list[tuple[int, ...]] = []
        self.threads: set[int] = set()
        self.refuse = refuse
        self.may_go = threading.Event()
        self.may_go.set()

    def describe(self, images: Sequence[Pixels]) -> Floats:
        self.may_go.wait()
        self.threads.add(threading.get_ident())
        self.batches.append((len(images), *images[0].shape[:2]))
        means = np.array([[image.mean()] for image in images], np.float32)
        if (means == self.refuse).any():
            raise RuntimeError("no such grey")
        return means


def grey(value: int, height: int = 4, width: int = 4) -> Pixels:
    return np.full((height, width, 3), value, np.uint8)


def value(ticket: Ticket) -> float:
    outcome = ticket.result()
    assert isinstance(outcome, Description)
    return float(outcome.descriptor[0])


@pytest.fixture
def model() -> Means:
    return Means()


@pytest.fixture
def describer(model: Means) -> Iterator[BatchDescriber]:
    made = BatchDescriber(model, 4, 2)
    yield made
    made.close()


def test_a_batch_is_filled_by_all_who_ask_and_holds_one_size(
    describer: BatchDescriber, model: Means
) -> None:
    first = [describer.add(grey(n)) for n in range(3)]  # one caller
    wide = [describer.add(grey(90 + n, 4, 8)) for n in range(2)]
    assert model.batches == []
    second = [describer.add(grey(10 + n)) for n in range(2)]  # another
    assert [value(ticket) for ticket in (*first, second[0])] == [0, 1, 2, 10]
    assert model.batches == [(4, 4, 4)]
    assert not second[1].done()
    describer.flush()
    assert [value(ticket) for ticket in (*wide, second[1])] == [90, 91, 11]
    assert sorted(model.batches) == [(1, 4, 4), (2, 4, 8), (4, 4, 4)]


def test_an_image_of_a_rare_size_does_not_wait_for_ever(
    describer: BatchDescriber, model: Means
) -> None:
    rare = describer.add(grey(7, 9, 9))
    for n in range(8 * 4 + 1):
        describer.add(grey(n))
    assert value(rare) == 7
    assert (1, 9, 9) in model.batches


def test_so_many_sizes_wait_for_their_batches_and_no_more(
    describer: BatchDescriber, model: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "_OPEN", 3)
    tickets = [describer.add(grey(n, 1 + n)) for n in range(5)]
    assert [value(ticket) for ticket in tickets[:2]] == [0, 1]
    assert sorted(model.batches) == [(1, 1, 4), (1, 2, 4)]
    describer.flush()
    assert [value(ticket) for ticket in tickets] == [0, 1, 2, 3, 4]


def test_the_memory_of_a_picture_is_the_callers_again(describer: BatchDescriber) -> None:
    picture = grey(5)
    ticket = describer.add(picture)
    picture[:] = 99
    describer.flush()
    assert value(ticket) == 5


def test_the_threads_that_compute_stay(describer: BatchDescriber, model: Means) -> None:
    for _ in range(20):
        tickets = [describer.add(grey(n)) for n in range(8)]
        describer.flush()
        assert [value(ticket) for ticket in tickets] == list(range(8))
    assert len(model.threads) <= 2
    assert sum(count for count, *_ in model.batches) == 160
    assert sum(count for count, _ in describer.taken_latencies()) == 160
    assert describer.taken_latencies() == []


def test_whoever_brings_more_than_is_computed_waits(
    describer: BatchDescriber, model: Means
) -> None:
    model.may_go.clear()
    added: list[Ticket] = []

    def bring() -> None:
        added.extend(describer.add(grey(n)) for n in range(40))

    one = threading.Thread(target=bring)
    one.start()
    one.join(0.3)
    assert one.is_alive()
    model.may_go.set()
    one.join()
    describer.flush()
    assert [value(ticket) for ticket in added] == list(range(40))


def test_an_error_ends_its_batch_and_no_other() -> None:
    describer = BatchDescriber(Means(refuse=2.0), 4, 1)
    bad = [describer.add(grey(n)) for n in range(4)]
    good = [describer.add(grey(n + 10)) for n in range(4)]
    for ticket in bad:
        with pytest.raises(RuntimeError, match="no such grey"):
            ticket.result()
    assert [value(ticket) for ticket in good] == [10, 11, 12, 13]
    # As many more as there is room for: none is lost to batches that failed.
    for _ in range(5):
        for ticket in [describer.add(grey(2)) for _ in range(4)]:
            with pytest.raises(RuntimeError):
                ticket.result()
    describer.close()


def lite() -> AggregatedModel:
    images = photographs(6, 320, 240)
    drawn = learning.sample_local_descriptors("netvlad-lite", None, images, 100, seed=0)
    words = learning.fit("netvlad-lite", None, drawn, clusters=16)
    model = load_model("netvlad-lite", vocabulary.to_bytes(words))
    assert isinstance(model, AggregatedModel)
    return model


@pytest.fixture(scope="module")
def network() -> AggregatedModel:
    return lite()


def described(describer: BatchDescriber, pictures: Sequence[Pixels | Encoded]) -> list[Description]:
    tickets = [describer.add(picture) for picture in pictures]
    describer.flush()
    found = [ticket.result() for ticket in tickets]
    assert all(isinstance(one, Description) for one in found)
    return [one for one in found if isinstance(one, Description)]


def same(one: Description, other: Description) -> bool:
    arrays: list[list[NDArray[np.generic]]] = []
    for each in (one, other):
        patches = each.patches
        arrays.append([each.descriptor])
        if patches is not None:
            arrays[-1] += [*patches.descriptors, *patches.centres, *patches.scales]
    return len(arrays[0]) == len(arrays[1]) and all(map(np.array_equal, *arrays))


@pytest.mark.medium
@pytest.mark.parametrize("patch_size", [0, 5])
def test_descriptors_are_the_same_bytes_whatever_the_batches(
    network: AggregatedModel, patch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computing_module, "_CPU_BATCH", 64)
    images = [
        image
        for pair in zip(photographs(5, 320, 240), photographs(5, 240, 320), strict=True)
        for image in pair
    ]
    found = []
    for batch_size, lanes in ((1, 1), (3, 2), (64, 1)):
        describer = BatchDescriber(network, batch_size, lanes, patch_size)
        found.append(described(describer, images))
        describer.close()
    assert all(same(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))
    if patch_size:
        direct = [(row, stored(one)) for row, one in network.describe_each(images, (patch_size,))]
        expected = [Description(*one) for one in direct]
    else:
        expected = [Description(row, None) for row in network.describe(images)]
    assert all(same(*pair) for pair in zip(found[0], expected, strict=True))


@pytest.mark.medium
def test_files_and_pixels_share_a_batch_and_a_damaged_file_costs_itself_alone(
    network: AggregatedModel,
) -> None:
    files = [jpeg(n, (320, 240)) for n in range(4)]
    damaged = bytearray(jpeg(9, (320, 240)))
    damaged[len(damaged) // 2 : len(damaged) // 2 + 300] = bytes(300)
    pixels = [image.permute(1, 2, 0).numpy() for image in libjpeg_of(files)]
    expected = described(BatchDescriber(network, 8, 1), pixels)
    describer = BatchDescriber(network, 8, 1, decoder=libjpeg_or_error)
    pictures = [known(files[0]), pixels[1], known(bytes(damaged)), known(files[2]), pixels[3]]
    tickets = [describer.add(picture) for picture in pictures]
    describer.flush()
    found = [ticket.result() for ticket in tickets]
    assert isinstance(found[2], PhotoError)
    for one, other in zip([*found[:2], *found[3:]], expected, strict=True):
        assert isinstance(one, Description)
        assert same(one, other)
    assert describer.taken_on_cpu() == 1
    describer.close()


def libjpeg_of(files: Sequence[bytes]) -> list[Tensor]:
    return libjpeg([torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files])


def libjpeg_or_error(files: list[Tensor]) -> list[Tensor]:
    """nvJPEG says nothing of damage in the middle; here it refuses what has a run of zeros."""
    if any(bytes(100) in file.numpy().tobytes() for file in files):
        raise RuntimeError("unsupported")
    return libjpeg(files)
