"""The way of a batch over a GPU, played on a CPU with its real arithmetic: same bytes, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from tests.models.played_gpu import PlayedGpu
from tests.models.synthetic import photographs
from tests.models.test_batches import described, libjpeg_of, libjpeg_or_error, lite, same
from tests.models.test_encoded import jpeg, known, libjpeg
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.base import Pixels
from vladmap.models.batches import BatchDescriber
from vladmap.models.computing import Description
from vladmap.models.encoded import JpegDecoder
from vladmap.models.recorded import OFTEN
from vladmap.schemas.rejects import PhotoError

pytestmark = pytest.mark.medium

BATCH = 2


@pytest.fixture(scope="module")
def network() -> AggregatedModel:
    return lite()


@pytest.fixture(scope="module")
def images() -> list[Pixels]:
    """Of two sizes: two batches and a rest of each are more than are computed call by call."""
    wide = photographs(BATCH * (OFTEN + 2) + 1, 320, 240)
    return [*wide, *photographs(BATCH + 1, 240, 320)]


@pytest.fixture(scope="module")
def expected(network: AggregatedModel, images: list[Pixels]) -> list[Description]:
    describer = BatchDescriber(network, BATCH, 1)
    found = described(describer, images)
    describer.close()
    return found


@pytest.fixture
def gpu(network: AggregatedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedGpu]:
    """Nothing may be read before it is there, nor given back before it was read."""
    played, packed = PlayedGpu(), network.packed

    def watched(stack: Tensor, sizes: tuple[int, ...]) -> Tensor:
        played.require_ready(stack)
        return packed(stack, sizes)

    monkeypatch.setattr(network, "packed", watched)
    yield played
    assert (played.freed_early, played.read_early, played.changed_early) == (0, 0, 0)


def over(
    gpu: PlayedGpu, network: AggregatedModel, decoder: JpegDecoder | None = None, patches: int = 0
) -> BatchDescriber:
    return BatchDescriber(network, BATCH, 1, patches, decoder, gpu)


def equal(found: Sequence[Description], expected: Sequence[Description]) -> bool:
    return all(same(*pair) for pair in zip(found, expected, strict=True))


def test_bytes_are_the_cpus_and_threads_and_recordings_stay_whatever_the_shards(
    network: AggregatedModel, images: list[Pixels], expected: list[Description], gpu: PlayedGpu
) -> None:
    describer = over(gpu, network)
    tickets = []
    for start in range(0, len(images), 3):  # shards of three images: batches of two cross them
        tickets += [describer.add(image) for image in images[start : start + 3]]
    describer.flush()
    found = [ticket.result() for ticket in tickets]
    assert equal([one for one in found if isinstance(one, Description)], expected)
    assert equal(described(describer, images), expected)  # another pipeline of the same worker
    describer.close()
    assert gpu.graphs.recorded == [(BATCH, 240, 320, 3)]  # the other size has too few full batches
    assert gpu.graphs.replays > OFTEN
    bring, compute, wait = (len(each) for each in gpu.threads.values())
    assert bring <= 2
    assert (compute, wait) == (1, 1)
    assert len(set.union(*gpu.threads.values())) == bring + 2


def test_patches_are_the_cpus(network: AggregatedModel, gpu: PlayedGpu) -> None:
    images = photographs(5, 320, 240)
    describer = BatchDescriber(network, BATCH, 1, 5)
    expected = described(describer, images)
    describer.close()
    describer = over(gpu, network, patches=5)
    assert equal(described(describer, images), expected)
    describer.close()


def test_files_are_decoded_beside_pixels_and_a_damaged_one_costs_itself_alone(
    network: AggregatedModel, gpu: PlayedGpu
) -> None:
    files = [jpeg(n, (320, 240)) for n in range(4)]
    damaged = bytearray(jpeg(9, (320, 240)))
    damaged[len(damaged) // 2 : len(damaged) // 2 + 300] = bytes(300)
    pixels = [image.permute(1, 2, 0).numpy() for image in libjpeg_of(files)]
    describer = BatchDescriber(network, BATCH, 1)
    expected = described(describer, pixels)
    describer.close()
    describer = BatchDescriber(network, 5, 1, 0, libjpeg_or_error, gpu)
    pictures = [known(files[0]), pixels[1], known(bytes(damaged)), known(files[2]), pixels[3]]
    tickets = [describer.add(picture) for picture in pictures]
    found = [ticket.result() for ticket in tickets]
    describer.close()
    assert isinstance(found[2], PhotoError)
    assert equal([one for one in found if isinstance(one, Description)], expected)
    assert describer.taken_on_cpu() == 1


class Cramped:
    """A network that has memory for so many images at a time; keeps what it was asked for."""

    def __init__(self, model: AggregatedModel, room: int) -> None:
        self._packed, self.room, self.asked = model.packed, room, list[int]()

    def __call__(self, stack: Tensor, sizes: tuple[int, ...]) -> Tensor:
        self.asked.append(len(stack))
        if len(stack) > self.room:
            raise torch.OutOfMemoryError("played")
        return self._packed(stack, sizes)


def test_a_batch_that_does_not_fit_is_halved_and_the_next_ones_come_halved(
    network: AggregatedModel, images: list[Pixels], expected: list[Description], gpu: PlayedGpu,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cramped = Cramped(network, 1)
    monkeypatch.setattr(network, "packed", cramped)
    describer = BatchDescriber(network, 4, 1, gpu=gpu)
    assert equal(described(describer, images), expected)
    assert equal(described(describer, images), expected)
    describer.close()
    assert [asked for asked in cramped.asked if asked > 1] == [4, 2]


def test_recordings_are_given_up_before_a_batch_is_halved(
    network: AggregatedModel, images: list[Pixels], expected: list[Description], gpu: PlayedGpu,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    cramped = Cramped(network, BATCH)
    monkeypatch.setattr(network, "packed", cramped)
    describer = over(gpu, network)
    assert equal(described(describer, images), expected)
    before, cramped.room = len(gpu.graphs.recorded), 0
    run = describer._computer._run
    assert run is not None
    give_up = run.give_up

    def makes_room() -> bool:
        cramped.room = BATCH
        return give_up()

    monkeypatch.setattr(run, "give_up", makes_room)
    assert equal(described(describer, images), expected)
    describer.close()
    assert "CUDA graphs are given up" in caplog.text
    assert len(gpu.graphs.recorded) == before > 0
    assert describer._computer._limit == BATCH
    assert gpu.settled == 1


def test_images_that_have_no_room_on_the_gpu_together_go_there_in_parts(
    network: AggregatedModel, images: list[Pixels], expected: list[Description], gpu: PlayedGpu,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    gpu.room = 2
    describer = BatchDescriber(network, 4, 1, gpu=gpu)
    assert equal(described(describer, images), expected)
    describer.close()
    # Said and tried once a number of images (4, then 3), not for each batch.
    assert 1 <= sum("it goes in parts" in line for line in caplog.messages) == gpu.settled <= 2


def test_files_that_have_no_room_there_together_are_decoded_by_halves(
    network: AggregatedModel, gpu: PlayedGpu
) -> None:
    asked: list[int] = []

    def two_at_most(files: list[Tensor]) -> list[Tensor]:
        asked.append(len(files))
        if len(files) > 2:
            raise RuntimeError("Error while decoding JPEG images: CUDA out of memory. Tried to")
        return libjpeg(files)

    files = [jpeg(n, (320, 240)) for n in range(5)]
    describer = BatchDescriber(network, BATCH, 1)
    expected = described(describer, [image.permute(1, 2, 0).numpy() for image in libjpeg_of(files)])
    describer.close()
    describer = BatchDescriber(network, 5, 1, 0, two_at_most, gpu)
    assert equal(described(describer, [known(file) for file in files]), expected)
    describer.close()
    assert asked == [5, 2, 3, 1, 2]
    assert describer.taken_on_cpu() == 0


def test_an_image_that_does_not_fit_alone_ends_its_batch_and_no_other(
    network: AggregatedModel, gpu: PlayedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = network.packed

    def small_alone(stack: Tensor, sizes: tuple[int, ...]) -> Tensor:
        if stack.shape[1] > 300:
            raise torch.OutOfMemoryError("played")
        return packed(stack, sizes)

    monkeypatch.setattr(network, "packed", small_alone)
    describer = over(gpu, network)
    high = [describer.add(image) for image in photographs(BATCH, 240, 320)]
    flat = [describer.add(image) for image in photographs(BATCH, 320, 240)]
    for ticket in high:
        with pytest.raises(torch.OutOfMemoryError):
            ticket.result()
    assert all(isinstance(ticket.result(), Description) for ticket in flat)
    describer.close()


def test_a_played_gpu_shows_what_is_read_or_given_back_too_early() -> None:
    """The proofs above rest on it."""
    gpu = PlayedGpu()
    pixels = torch.from_numpy(gpu.host((2, 2, 2, 3)).numpy())
    pixels[:] = 7
    with gpu.bringing():
        there = gpu.moved(pixels)
        mark = gpu.mark()
    gpu.require_ready(there[1:])
    assert gpu.read_early == 1
    mark.synchronize()
    gpu.require_ready(there[1:])
    assert gpu.read_early == 1
    host, arrived = gpu.fetched(there)
    assert 7 not in host
    del there
    assert gpu.freed_early == 1
    arrived.synchronize()
    assert (host == 7).all()
    kept = host.numpy()[1:]
    del host
    assert (kept == 7).all()
    with gpu.bringing():
        gpu.moved(pixels)
        pixels[0] = 8
        gpu.mark().synchronize()
    assert gpu.changed_early == 1
