"""Which pipelines an engine is given: each costs seconds there, in a cloud minutes, to start."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from tests.drives import write_drive
from vladmap.atlas.store import AtlasStore
from vladmap.pipeline import launch, stage
from vladmap.pipeline.build import kept_options, run_stages
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES

ENGINE = ["--runner=PortableRunner", "--job_endpoint=127.0.0.1:1"]
LIGHT = {"organise", "train index", "index", "index places", "merge index", "coverage"}

Launched = list[tuple[str, bool]]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Launched:
    """(label, whether an engine was to run it) of each pipeline; this process runs them all."""
    found: Launched = []
    really = launch.run

    def run(
        words: Sequence[str], label: str, build: Callable[[beam.Pipeline], object]
    ) -> tuple[Any, launch.Metrics]:
        found.append((label, launch.is_engine(words)))
        return really((), label, build)

    monkeypatch.setattr(launch, "run", run)
    return found


def build(options: BuildOptions, words: Sequence[str] = ENGINE, upto: int = len(STAGES)) -> Run:
    atlas = AtlasStore.open(options.atlas, create=True)
    return run_stages(atlas, options, words, list(STAGES)[:upto])


def options_for(atlas: Path) -> BuildOptions:
    options = kept_options(AtlasStore.open(str(atlas), create=False, write=False))
    assert options is not None
    return options


@pytest.mark.medium
def test_an_atlas_that_is_up_to_date_starts_no_pipeline(
    atlas_copy: Path, launched: Launched
) -> None:
    run = build(dataclasses.replace(options_for(atlas_copy), atlas=str(atlas_copy)))
    assert {result.elements for result in run.results} == {0}
    assert launched == []


@pytest.mark.medium
def test_light_steps_of_a_small_collection_are_done_here_and_the_others_there(
    tmp_path: Path, launched: Launched
) -> None:
    write_drive(tmp_path / "photos", 5)
    options = BuildOptions(
        images=str(tmp_path / "photos"), atlas=str(tmp_path / "atlas"), shard_images=3, clusters=4
    )
    build(options, upto=4)
    assert {label for label, there in launched if not there} == LIGHT - {"coverage"}
    assert [label for label, there in launched if there] == [
        *("ingest", "vocabulary", "describe", "pair"),
    ]


@pytest.mark.medium
def test_cells_are_counted_here(atlas_copy: Path, launched: Launched) -> None:
    (atlas_copy / "coverage.parquet").unlink()
    build(dataclasses.replace(options_for(atlas_copy), atlas=str(atlas_copy)))
    assert launched == [("coverage", False)]


@pytest.mark.medium
@pytest.mark.parametrize(("most", "there"), [(12, False), (11, True)])
def test_what_is_light_is_counted_in_rows(
    grown: tuple[Path, Path],
    tmp_path: Path,
    launched: Launched,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    there: bool,
) -> None:
    """12 photographs: the training of an index, one unit, reads as many descriptors."""
    photos, before = grown
    shutil.copytree(before, tmp_path / "atlas")
    monkeypatch.setattr(stage, "LIGHT_ROWS", most)
    options = BuildOptions(
        images=str(photos),
        atlas=str(tmp_path / "atlas"),
        shard_images=8,
        clusters=8,
        factory="PCA8,Flat",  # another one than by default: the index is made anew
    )
    build(options, upto=3)
    assert launched == [
        (label, there) for label in ("train index", "index", "index places", "merge index")
    ]


@pytest.mark.medium
@pytest.mark.parametrize("words", [[], ["--direct_running_mode=multi_processing"]])
def test_where_pipelines_start_at_once_no_step_is_light(words: list[str]) -> None:
    run = Run(AtlasStore("nowhere"), BuildOptions(), words)
    steps = [step for each in STAGES.values() for step in each.steps if step.light]
    assert {step.title for step in steps} == LIGHT
    assert not any(run.is_light(step, 1) for step in steps)
    elsewhere = Run(AtlasStore("nowhere"), BuildOptions(), ENGINE)
    assert all(elsewhere.is_light(step, 1) for step in steps)
    assert not any(elsewhere.is_light(step, 1, "cuda") for step in steps)
