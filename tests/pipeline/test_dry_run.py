"""What a dry run counts with and says: the atlas's own runs, a calibration, rates of a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.city import IMAGES
from tests.drives import write_drive
from tests.pipeline.test_stages import build
from vladmap.atlas import layout
from vladmap.atlas.store import AtlasStore
from vladmap.jobs.main import main
from vladmap.pipeline.collection import list_collection
from vladmap.pipeline.dry_run import Costing, describe_work, duration
from vladmap.pipeline.estimate import Prices
from vladmap.pipeline.measured import calibrate, rates_of_atlas
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES
from vladmap.schemas.records import sealed

BY_HAND = """
source = "by hand"
[[rate]]
step = "ingest"
seconds = 36
[[rate]]
step = "features"
seconds = 360
when = { features = "sift" }
[bytes]
features = 1000000
"""


def steps(figures: dict[str, list[dict[str, object]]]) -> dict[object, dict[str, object]]:
    return {cost["step"]: cost for cost in figures["steps"]}


def test_hours_bytes_workers_and_money_follow_from_the_rates_and_prices(tmp_path: Path) -> None:
    """Four photographs in two shards. Ingest: 4 x 36 s, two workers 72 s. Two workers for 72 s at
    10 an hour: 0.40. Four MB of features."""
    write_drive(tmp_path / "drive", 4)
    (tmp_path / "rates.toml").write_text(BY_HAND)
    options = BuildOptions(
        images=str(tmp_path / "drive"), atlas=str(tmp_path / "atlas"), shard_images=2
    )
    costing = Costing(str(tmp_path / "rates.toml"), 2, prices=Prices(worker_hour=10.0))
    said = describe_work(options, ["ingest"], costing=costing)
    found = steps(said.figures)
    assert found["ingest"]["seconds"] == pytest.approx(144)
    assert found["ingest"]["elapsed_s"] == pytest.approx(72)
    assert said.figures["money"] == {"workers": pytest.approx(2 * 72 / 3600 * 10)}
    assert said.figures["bytes"]["features"] == 4e6
    text = "\n".join(said.lines)
    assert "2 min on one worker, 72 s on 2" in text
    assert "money       0.40 at the prices given" in text
    assert "[1] by hand" in text
    assert not (tmp_path / "atlas").exists()


@pytest.mark.medium
def test_an_atlas_remembers_its_rates_and_its_bytes(built_atlas: Path) -> None:
    run = Run(AtlasStore.open(str(built_atlas), create=False), BuildOptions(atlas=str(built_atlas)))
    rates = rates_of_atlas(run)
    timings = run.timings()
    for step in ("ingest", "describe", "features", "verify"):
        (rate,) = rates.of(step)
        assert rate.seconds == pytest.approx(timings[step]["seconds"] / timings[step]["elements"])
    (tiles,) = rates.of("reconstruct")  # all photographs in one tile
    assert tiles.size == pytest.approx(IMAGES, abs=2)
    assert tiles.seconds == pytest.approx(timings["reconstruct"]["seconds"] / tiles.size)
    files = [path for path in (built_atlas / "features").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    assert rates.bytes["features"] == pytest.approx(size / IMAGES)


def test_runs_by_many_workers_or_by_other_options_are_counted_for_what_they_were(
    tmp_path: Path,
) -> None:
    """100 images in 10 s by five workers: half a second of one worker for each image."""
    run = Run(AtlasStore.open(str(tmp_path), create=True), BuildOptions(atlas=str(tmp_path)))
    timing = {"unit": "images", "elements": 100, "reused": 0, "seconds": 10.0, "device": "cpu"}
    timings = {
        "ingest": timing,
        "describe": {**timing, "workers": 5, "options": {"model": run.options.model}},
        "features": {**timing, "options": {"features": "xfeat"}},
    }
    path = tmp_path / layout.TIMINGS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sealed(timings))
    rates = {rate.step: rate.seconds for rate in rates_of_atlas(run).rates}
    assert rates == {"ingest": pytest.approx(0.1), "describe": pytest.approx(0.5)}


@pytest.mark.medium
def test_what_is_built_costs_nothing_and_another_model_costs_all(
    built_atlas: Path, rendered_city: Path
) -> None:
    images = str(rendered_city / "images")
    same = BuildOptions(images=images, atlas=str(built_atlas))
    kept = json.loads((built_atlas / "work" / "options.json").read_text())
    same = BuildOptions(**{**kept, "images": images, "atlas": str(built_atlas)})
    said = describe_work(same, list(STAGES)).figures
    assert {cost["units"] for cost in steps(said).values()} == {0}
    for folder in ("features", "two_views", "model", "index"):
        files = [path for path in (built_atlas / folder).rglob("*") if path.is_file()]
        assert said["bytes"][folder] == sum(path.stat().st_size for path in files)
    without_effect = {"max_reject_rate": 0.9, "tile_minutes": 9.0, "threads": 1, "batch_size": 3}
    other = BuildOptions(**{**vars(same), **without_effect})
    found = steps(describe_work(other, list(STAGES)).figures)
    assert {cost["units"] for cost in found.values()} == {0}
    other = BuildOptions(**{**kept, "images": images, "atlas": str(built_atlas), "near": 3})
    found = steps(describe_work(other, list(STAGES)).figures)
    assert found["describe"]["units"] == 0
    assert found["pair"]["units"] == IMAGES
    assert found["merge"]["units"] == IMAGES


@pytest.mark.medium
def test_what_new_and_deleted_photographs_cost(tmp_path: Path) -> None:
    """Nine photographs and a text in shards of four: four, four and one. A rejected file is not
    described again by each run; words are learnt once; a photograph that is deleted costs a shard,
    three photographs on average, and whatever is one task is done again."""
    photos, atlas = tmp_path / "drive", tmp_path / "atlas"
    write_drive(photos, 9)
    (photos / "text.jpg").write_text("no photograph")
    build(photos, atlas, 3, shard_images=4)
    options = BuildOptions(images=str(photos), atlas=str(atlas), shard_images=4, clusters=8)

    def units() -> dict[object, object]:
        said = describe_work(options, ["ingest", "describe", "index"])
        return {step: cost["units"] for step, cost in steps(said.figures).items()}

    nothing = dict.fromkeys(
        ["ingest", "vocabulary", "describe", "train index", "index", "index places", "merge index"],
        0,
    )
    assert units() == nothing
    write_drive(photos, 2, start=20)
    new = {"ingest": 2, "describe": 2, "index": 2, "index places": 2, "merge index": 11}
    assert units() == {**nothing, **new}
    for number in (20, 21, 0):
        (photos / f"{number:04d}.jpg").unlink()
    gone = {"describe": 3, "index": 3, "index places": 3, "merge index": 9}
    assert units() == {**nothing, **gone}
    build(photos, atlas, 3, shard_images=4)
    assert units() == nothing


@pytest.mark.slow
def test_a_calibration_builds_a_few_photographs_and_leaves_nothing(
    rendered_city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    images = str(rendered_city / "images")
    options = BuildOptions(images=images, atlas=str(tmp_path / "atlas"))
    told = calibrate(options, list_collection(images), ["ingest", "describe", "reconstruct"])
    assert told.ended == ""
    assert {rate.step for rate in told.rates.rates} == {"ingest", "vocabulary", "describe"}
    assert all(rate.seconds > 0 for rate in told.rates.rates)
    assert told.dimension > 0
    assert told.rates.bytes["descriptors"] == pytest.approx(4, rel=0.6)  # float32 and Parquet's own
    assert "16 of its photographs" in told.rates.source
    assert not list(tmp_path.glob("vladmap-calibration-*"))
    assert not (tmp_path / "atlas").exists()


@pytest.mark.medium
def test_a_calibration_of_what_cannot_be_built_says_where_it_ended(tmp_path: Path) -> None:
    write_drive(tmp_path / "drive", 3)
    options = BuildOptions(
        images=str(tmp_path / "drive"), atlas=str(tmp_path / "atlas"), model="netvlad"
    )
    told = calibrate(options, list_collection(options.images), ["ingest", "describe"])
    assert told.ended.startswith("describe: ")
    assert [rate.step for rate in told.rates.rates] == ["ingest"]


def test_what_a_dry_run_counts_with_is_refused_in_any_other_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", "--images", str(tmp_path), "--atlas", str(tmp_path / "atlas")]
    assert main([*words, "--worker-price", "3", "--workers", "2"]) == 2
    assert "--workers, --worker-price: only with --dry-run" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--dry-run", "--gpu-price", "-1"])
    assert "--gpu-price: must be at least 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "0 s"), (0.2, "under 1 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h")],
)
def test_durations_are_read_at_a_glance(seconds: float, said: str) -> None:
    assert duration(seconds) == said
