"""Files of rates: what is read of them, what is refused, and what lies between two sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.rates import DEFAULT, Rate, Rates, at_size, read_rates, shipped_names
from vladmap.pipeline.stages import STAGES
from vladmap.schemas.rejects import UserError

CPU = BuildOptions()


def read(tmp_path: Path, text: str, options: BuildOptions = CPU) -> Rates:
    path = tmp_path / "rates.toml"
    path.write_text(text)
    return read_rates(str(path), options)


def test_between_two_sizes_time_grows_by_a_power() -> None:
    """1 s at 100 and 2 s at 400 is the square root: 4 s at 1,600, 0.5 s at 25."""
    points = [Rate("reconstruct", 1.0, 100.0), Rate("reconstruct", 2.0, 400.0)]
    assert [at_size(points, size) for size in (25, 100, 225, 400, 1600)] == pytest.approx(
        [0.5, 1.0, 1.5, 2.0, 4.0]
    )


def test_each_pair_of_sizes_has_a_slope_of_its_own() -> None:
    points = [Rate("r", 1.0, 10.0), Rate("r", 1.0, 100.0), Rate("r", 10.0, 1000.0)]
    assert [at_size(points, size) for size in (1, 31.6227766, 316.227766)] == pytest.approx(
        [1.0, 1.0, 10**0.5]
    )


def test_one_measurement_holds_for_every_size() -> None:
    assert at_size([Rate("pair", 3.0, 100.0)], 5.0) == 3.0
    assert at_size([Rate("pair", 3.0)], 5.0) == 3.0


def test_only_rates_whose_conditions_hold_are_read(tmp_path: Path) -> None:
    text = """
source = "by hand"
[[rate]]
step = "describe"
per_second = 4
when = { device = "cuda" }
[[rate]]
step = "describe"
seconds = 2
when = { device = "cpu", model = ["netvlad-lite", "gem"], patches = false }
[bytes]
features = 7
"""
    assert read(tmp_path, text).rates == (Rate("describe", 2.0),)
    assert read(tmp_path, text, BuildOptions(device="cuda")).rates == (Rate("describe", 0.25),)
    assert read(tmp_path, text, BuildOptions(rerank="rapid")).rates == ()
    assert read(tmp_path, text).bytes == {"features": 7.0}


def test_what_a_dry_run_says_in_json_is_read_back(tmp_path: Path) -> None:
    rates = Rates(
        "a run", (Rate("pair", 0.5), Rate("verify", 0.1, 3.0)), {"pairs": 4.0}, {"pairs": 5.0}, 2.0
    )
    path = tmp_path / "rates.json"
    path.write_text(json.dumps(rates.to_json()))
    assert read_rates(str(path), CPU) == rates


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "`source` must say"),
        ("source = 3", "`source` must say"),
        ("source = 'a'\nspeed = 1", "unknown key 'speed'"),
        ("source = 'a'\nrate = 3", "`rate` is a list of tables"),
        ("source = 'a'\nmost = 3", "one table each"),
        ("source = 'a'\n[most]\npairs = 3", "unknown key 'pairs'"),
        ("source = 'a'\n[[rate]]\nstep = 'describ'\nseconds = 1", "did you mean describe?"),
        ("source = 'a'\n[[rate]]\nstep = 'pair'", "give either `seconds` or `per_second`"),
        ("source = 'a'\n[[rate]]\nstep = 'pair'\nseconds = 0", "must be a number more than 0"),
        ("source = 'a'\n[[rate]]\nstep = 'pair'\nseconds = nan", "must be a number more than 0"),
        ("source = 'a'\n[[rate]]\nstep = 'pair'\nseconds = true", "must be a number"),
        (
            "source = 'a'\n[[rate]]\nstep = 'pair'\nseconds = 1\nwhen = { devise = 'cpu' }",
            "did you mean device?",
        ),
        ("source = 'a'\n[bytes]\nfeatures = -1", "features must be a number at least 0"),
        ("source = 'a'\n[bytes]\nnothing = 1", "unknown key 'nothing'"),
        ("source = ", "neither TOML nor JSON"),
        ("{", "neither TOML nor JSON"),
    ],
)
def test_a_file_that_is_no_rates_is_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match="--rates") as raised:
        read(tmp_path, text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_name_that_is_no_file_names_those_that_ship() -> None:
    with pytest.raises(UserError, match=r"those that ship: h100, two-cores"):
        read_rates("h200", CPU)


@pytest.mark.parametrize("name", shipped_names())
def test_the_rates_that_ship_name_their_source_and_can_be_read(name: str) -> None:
    for options in (CPU, BuildOptions(device="cuda"), BuildOptions(device="cuda", rerank="rapid")):
        assert len(read_rates(name, options).source) > 20
    assert read_rates("h100", BuildOptions(device="cuda")).of("describe")
    assert not read_rates("h100", CPU).rates


def test_a_plain_build_has_a_rate_for_every_step_that_a_worker_takes() -> None:
    known = {rate.step for rate in read_rates(DEFAULT, CPU).rates}
    worked = {
        step.title
        for stage in STAGES.values()
        for step in stage.steps
        if step.applies(CPU)
        and step.unit != "shards"  # what the driver does itself, or a short step of ingest
    }
    assert worked == known
