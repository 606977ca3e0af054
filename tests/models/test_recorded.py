"""Functions of stacks that are recorded for the sizes that occur often; no GPU is needed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models.played_gpu import PlayedGraphs
from vladmap.models.gpu import Gpu
from vladmap.models.recorded import MOST, OFTEN, Function, OftenRecorded, Replay, filled


def sums(stack: Tensor) -> Tensor:
    return stack.float().sum((1, 2))


def stack(count: int, height: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, 3, 3), generator=generator, dtype=torch.uint8)


def test_a_size_is_recorded_once_after_some_full_stacks_and_gives_the_same_from_then_on() -> None:
    recorder = PlayedGraphs()
    run = OftenRecorded(sums, 4, recorder)
    for number in range(3 * OFTEN):
        one = stack(4, seed=number)
        assert torch.equal(run(one), sums(one))
    assert recorder.recorded == [(4, 2, 3, 3)]
    assert recorder.replays == 2 * OFTEN
    assert run.sizes == [(2, 3, 3)]


def test_a_stack_that_is_not_full_fills_the_first_places_and_another_size_goes_without() -> None:
    recorder = PlayedGraphs()
    run = OftenRecorded(sums, 4, recorder)
    for number in range(OFTEN + 1):
        run(stack(4, seed=number))
    assert torch.equal(run(stack(3, seed=9)), sums(stack(3, seed=9)))
    assert recorder.replays == 2
    assert torch.equal(run(stack(4, 5)), sums(stack(4, 5)))
    assert torch.equal(run(stack(6)), sums(stack(6)))
    assert recorder.replays == 2


def test_stacks_that_are_never_full_are_never_recorded() -> None:
    recorder = PlayedGraphs()
    run = OftenRecorded(sums, 4, recorder)
    for _ in range(5 * OFTEN):
        run(stack(3))
    assert recorder.recorded == []


def test_so_many_sizes_are_recorded_and_no_more() -> None:
    recorder = PlayedGraphs()
    run = OftenRecorded(sums, 1, recorder)
    for height in range(1, MOST + 3):
        for _ in range(OFTEN + 1):
            assert torch.equal(run(stack(1, height)), sums(stack(1, height)))
    assert len(recorder.recorded) == MOST


def test_what_cannot_be_recorded_goes_on_without_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(function: Function, place: Tensor) -> Replay:
        raise RuntimeError("operation not permitted when stream is capturing")

    run = OftenRecorded(sums, 4, refuse)
    for number in range(3 * OFTEN):
        assert torch.equal(run(stack(4, seed=number)), sums(stack(4, seed=number)))
    assert [record.getMessage() for record in caplog.records] == [
        "describe: no CUDA graph for 3 x 2, nor for other sizes from here on: operation not "
        "permitted when stream is capturing"
    ]


def test_once_one_size_cannot_be_recorded_no_other_is_tried_and_those_that_are_stay() -> None:
    recorder, tried = PlayedGraphs(), list[tuple[int, ...]]()

    def flat_alone(function: Function, place: Tensor) -> Replay:
        tried.append(tuple(place.shape))
        if place.shape[1] > 2:
            raise MemoryError("1.0 of 80.0 GiB are free")
        return recorder(function, place)

    run = OftenRecorded(sums, 4, flat_alone)
    for height in (2, 5, 6, 2):
        for number in range(OFTEN + 1):
            one = stack(4, height, number)
            assert torch.equal(run(one), sums(one))
    assert tried == [(4, 2, 3, 3), (4, 5, 3, 3)]
    assert run.sizes == [(2, 3, 3)]


def test_what_is_given_up_is_not_recorded_again() -> None:
    recorder = PlayedGraphs()
    run = OftenRecorded(sums, 4, recorder)
    assert not run.give_up()
    run = OftenRecorded(sums, 4, recorder)
    for _ in range(OFTEN + 1):
        run(stack(4))
    assert run.give_up()
    for _ in range(2 * OFTEN):
        assert torch.equal(run(stack(4)), sums(stack(4)))
    assert recorder.recorded == [(4, 2, 3, 3)]
    assert run.sizes == []


def test_after_an_end_of_memory_smaller_stacks_are_full_ones() -> None:
    recorder = PlayedGraphs()
    run = OftenRecorded(sums, 4, recorder)
    for _ in range(OFTEN + 1):
        run(stack(4))
    run.shrink(2)
    assert torch.equal(run(stack(4)), sums(stack(4)))
    for _ in range(OFTEN + 1):
        run(stack(2))
    assert recorder.recorded == [(4, 2, 3, 3), (2, 2, 3, 3)]


def test_on_a_gpu_stacks_come_in_few_numbers_and_give_what_they_give_alone() -> None:
    seen = set()

    def counted(one: Tensor) -> Tensor:
        seen.add(len(one))
        return sums(one)

    run = OftenRecorded(counted, 48, PlayedGraphs())
    for number in range(1, 48):
        one = stack(number)
        assert torch.equal(run(one), sums(one))
    assert seen == {4, 16, 48}
    run.shrink(3)
    assert torch.equal(run(stack(2)), sums(stack(2)))
    assert seen == {3, 4, 16, 48}


def test_black_images_fill_a_stack_and_stay_behind_it() -> None:
    whole = filled(stack(5), 100)
    assert len(whole) == 16
    assert torch.equal(whole[:5], stack(5))
    assert not whole[5:].any()
    assert filled(stack(4), 100).shape == (4, 2, 3, 3)
    assert len(filled(stack(7), 6)) == 7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_records_and_replays() -> None:
    device = torch.device("cuda")
    run = OftenRecorded(sums, 4, Gpu(device).recorder())
    for number in range(3 * OFTEN):
        assert torch.equal(run(stack(4, seed=number).to(device)).cpu(), sums(stack(4, seed=number)))
    assert run.sizes == [(2, 3, 3)]
