"""Hours, bytes and money, by values worked out by hand."""

from __future__ import annotations

import pytest

from vladmap.pipeline.estimate import (
    Amounts,
    Cost,
    Prices,
    bytes_on_disk,
    costs,
    money,
    most_on_disk,
    seconds_each,
)
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.rates import Rate, Rates
from vladmap.pipeline.stages import STAGES

OPTIONS = BuildOptions(shard_images=100, tile_images=300)


def cost_of(found: list[Cost], step: str) -> Cost:
    return next(cost for cost in found if cost.step == step)


def test_workers_take_whole_shards_so_the_last_round_leaves_some_idle() -> None:
    """500 images in 5 shards at 2 s an image: 1,000 s; two workers take 3 rounds of 200 s."""
    known = [Rates("by hand", (Rate("describe", 2.0),))]
    found = costs([STAGES["describe"]], OPTIONS, Amounts(500, 1e5, 30), known, workers=2)
    one = cost_of(found, "describe")
    assert (one.units, one.unit, one.seconds, one.elapsed_s, one.busy) == (
        *(500, "images", 1000.0, 600.0, 2),
    )


def test_more_workers_than_shards_help_no_more_and_one_task_knows_one_worker() -> None:
    """250 images are shards of 100, 100 and 50: 200 s. A merge is one task: 250 x 0.1 s."""
    known = [Rates("by hand", (Rate("describe", 2.0), Rate("merge", 0.1)))]
    stages = [STAGES["describe"], STAGES["merge"]]
    found = costs(stages, OPTIONS, Amounts(250, 1e5, 30), known, workers=50)
    describe, merge = cost_of(found, "describe"), cost_of(found, "merge")
    assert (describe.busy, describe.elapsed_s) == (3, pytest.approx(200.0))
    assert (merge.busy, merge.elapsed_s) == (1, pytest.approx(25.0))


def test_each_pipeline_of_a_runner_elsewhere_takes_its_time_to_start() -> None:
    known = [Rates("by hand", (Rate("describe", 2.0),), start_s=60.0)]
    found = costs([STAGES["describe"]], OPTIONS, Amounts(100, 1e5, 30), known)
    assert cost_of(found, "describe").elapsed_s == pytest.approx(260.0)


@pytest.mark.parametrize(("images", "start_s"), [(10_000, 0.0), (10_001, 60.0)])
def test_what_the_driver_does_itself_waits_for_no_runner(images: int, start_s: float) -> None:
    """Steps that only read rows of tables, of up to 10,000 photographs; not those on a GPU."""
    known = [Rates("by hand", (Rate("merge index", 0.001), Rate("merge", 0.001)), start_s=60.0)]
    stages = [STAGES["index"], STAGES["merge"]]
    found = costs(stages, OPTIONS, Amounts(images, 1e5, 30), known)
    assert cost_of(found, "merge index").elapsed_s == pytest.approx(images / 1000 + start_s)
    assert cost_of(found, "merge").elapsed_s == pytest.approx(images / 1000 + 60.0)
    on_gpu = costs(stages, OPTIONS, Amounts(images, 1e5, 30), known, on_gpu=["merge index"])
    assert cost_of(on_gpu, "merge index").elapsed_s == pytest.approx(images / 1000 + 60.0)


def test_what_is_done_costs_nothing_and_what_has_no_rate_is_not_known() -> None:
    known = [Rates("by hand", (Rate("features", 2.0),))]
    amounts = Amounts(100, 1e5, 30, fresh={"features": 0, "verify": 40})
    found = costs([STAGES["verify"]], OPTIONS, amounts, known)
    assert cost_of(found, "features").seconds == 0.0
    assert cost_of(found, "verify").units == 1200  # 40 images with 30 pairs each
    assert cost_of(found, "verify").seconds is None


def test_a_new_photograph_does_what_is_one_task_and_every_tile_anew() -> None:
    """Of 900 images in tiles of 300, whose cores have 255, come four; at 1.25 times the images, 282
    of each are mapped. Ten new photographs may touch all of them."""
    known = [Rates("by hand", (Rate("reconstruct", 0.5), Rate("merge", 0.1)))]
    fresh = {"reconstruct": 10, "merge": 10}
    stages = [STAGES["reconstruct"], STAGES["merge"]]
    found = costs(stages, OPTIONS, Amounts(900, 1e5, 30, fresh=fresh), known, workers=3)
    assert cost_of(found, "reconstruct").seconds == pytest.approx(4 * 282 * 0.5)
    assert cost_of(found, "reconstruct").elapsed_s == pytest.approx(2 * 282 * 0.5)
    assert cost_of(found, "merge").seconds == pytest.approx(90.0)


def test_words_are_learnt_from_a_sample_whatever_the_collection() -> None:
    known = [Rates("by hand", (Rate("vocabulary", 0.1),))]
    amounts = Amounts(10_000, 1e5, 30, at_most={"vocabulary": 256})
    found = costs([STAGES["describe"]], OPTIONS, amounts, known)
    assert cost_of(found, "vocabulary").seconds == pytest.approx(25.6)


def test_the_first_source_that_knows_a_step_counts() -> None:
    mine = Rates("mine", (Rate("pair", 1.0),))
    other = Rates("other", (Rate("pair", 9.0), Rate("verify", 3.0)))
    assert seconds_each("pair", 1e5, [mine, other]) == (1.0, "mine")
    assert seconds_each("verify", 1e5, [mine, other]) == (3.0, "other")
    assert seconds_each("merge", 1e5, [mine, other]) == (None, "")


def test_an_atlas_says_how_fast_the_machine_is_and_a_curve_how_tiles_grow() -> None:
    """The curve doubles from 100 to 400 images, and so does the 0.3 s of this machine."""
    mine = Rates("mine", (Rate("reconstruct", 0.3, size=100.0),))
    curve = Rates(
        "curve", (Rate("reconstruct", 5.0, size=100.0), Rate("reconstruct", 10.0, size=400.0))
    )
    assert seconds_each("reconstruct", 400.0, [mine, curve])[0] == pytest.approx(0.6)
    assert seconds_each("reconstruct", 200.0, [mine, curve])[0] == pytest.approx(0.3 * 2**0.5)
    assert seconds_each("reconstruct", 400.0, [mine])[0] == 0.3


def test_bytes_go_by_images_pairs_and_numbers_of_descriptors() -> None:
    known = [Rates("by hand", bytes={"features": 1000.0, "pairs": 10.0, "index": 8.0})]
    amounts = Amounts(50, 1e5, pairs_each=20, dimension=1024)
    assert bytes_on_disk(amounts, known) == {
        "features": 50_000.0,
        "pairs": 10_000.0,
        "index": 409_600.0,
    }
    assert "index" not in bytes_on_disk(Amounts(50, 1e5, 20), known)  # of no known dimension


def test_what_stands_counts_as_it_is_and_only_what_is_new_by_the_mean() -> None:
    """60 images have 90,000 bytes of features; 40 more take 1,000 each, or 2,500 as in the shard
    that had most. Tiles are all made anew: 100 x 10."""
    known = [Rates("by hand", bytes={"features": 1e3, "tiles": 10.0}, most={"features": 2500.0})]
    amounts = Amounts(
        100, 1e5, 30, fresh={"features": 40, "reconstruct": 40}, there=60,
        written={"features": 90_000.0, "tiles": 7.0},
    )  # fmt: skip
    assert bytes_on_disk(amounts, known) == {"features": 130_000.0, "tiles": 1000.0}
    assert most_on_disk(amounts, known) == {"features": 190_000.0, "tiles": 1000.0}
    done = Amounts(
        60, 1e5, 30, fresh={"features": 0, "reconstruct": 0}, there=60,
        written={"features": 90_000.0, "tiles": 7.0},
    )  # fmt: skip
    assert bytes_on_disk(done, known) == most_on_disk(done, known) == done.written


def test_money_counts_workers_by_the_hour_those_with_a_gpu_apart_and_what_is_stored() -> None:
    """Two plain workers for half an hour, one with a GPU for two hours, 250 GB."""
    plain = Cost("verify", "verify", 1, "pairs", 3600.0, 1800.0, 2, gpu=False, source="")
    gpu = Cost("describe", "describe", 1, "images", 7200.0, 7200.0, 1, gpu=True, source="")
    assert money([plain, gpu], 250e9, Prices(0.4, 3.0, 0.02)) == {
        "workers": pytest.approx(0.4),
        "workers with a GPU": pytest.approx(6.0),
        "storage for a month": pytest.approx(5.0),
    }
    assert money([plain, gpu], 250e9, Prices(worker_hour=0.4)) == {"workers": pytest.approx(0.4)}


def test_a_step_on_the_gpu_is_priced_as_such_and_the_others_are_not() -> None:
    found = costs(list(STAGES.values()), OPTIONS, Amounts(10, 1e5, 30), [], on_gpu={"describe"})
    assert {cost.step for cost in found if cost.gpu} == {"describe"}
