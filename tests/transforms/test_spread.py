"""Shuffles that a lost worker does not undo, in `Spread` and in every pipeline of a build."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.testing.util import assert_that, equal_to

from tests.drives import write_drive
from vladmap.atlas.store import AtlasStore
from vladmap.pipeline import launch
from vladmap.pipeline.build import run_stages
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.stages import STAGES
from vladmap.transforms.spread import Spread

RESHUFFLE = common_urns.composites.RESHUFFLE.urn
SHUFFLES = {RESHUFFLE, common_urns.primitives.GROUP_BY_KEY.urn}


def dealt_again(pipeline: beam.Pipeline) -> list[str]:
    """The names of Reshuffles that have another shuffle before them."""
    proto: beam_runner_api_pb2.Pipeline = pipeline.to_runner_api()
    transforms = proto.components.transforms

    def before(name: str) -> Iterator[str]:
        """The transforms from which an element comes to this one, itself and its parts left out."""
        seen, left = set(), set(transforms[name].inputs.values())
        while left:
            collection = left.pop()
            seen.add(collection)
            for other, each in transforms.items():
                if collection in each.outputs.values() and not each.subtransforms:
                    yield other
                    left |= set(each.inputs.values()) - seen

    return [
        each.unique_name
        for name, each in transforms.items()
        if each.spec.urn == RESHUFFLE
        and any(transforms[other].spec.urn in SHUFFLES for other in before(name))
    ]


def test_spread_gives_every_element_once_for_each_time_it_came() -> None:
    with beam.Pipeline() as pipeline:
        spread = pipeline | beam.Create([5, 3, 5, 8]) | Spread(lambda number: number % 2)
        assert_that(spread, equal_to([3, 5, 5, 8]))


def test_what_is_looked_for_is_found() -> None:
    """Create has a Reshuffle of its own before its elements, where it has more than one."""
    twice, once, keyed = beam.Pipeline(), beam.Pipeline(), beam.Pipeline()
    twice | beam.Create([1, 2]) | "Second" >> beam.Reshuffle()
    once | beam.Create([1, 2], reshuffle=False) | beam.Reshuffle()
    keyed | beam.Create([(1, 2)]) | beam.GroupByKey() | "After keys" >> beam.Reshuffle()
    assert dealt_again(twice) == ["Second"]
    assert dealt_again(once) == []
    assert dealt_again(keyed) == ["After keys"]


@pytest.mark.medium
def test_no_pipeline_of_a_build_reshuffles_after_another_shuffle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one does, Spark fails the job when a worker is lost (SPARK-25341)."""
    write_drive(tmp_path / "drive", 12)
    found: dict[str, list[str]] = {}
    really = launch.run

    def run(
        words: Sequence[str], label: str, build: Callable[[beam.Pipeline], object]
    ) -> tuple[Any, launch.Metrics]:
        def both(pipeline: beam.Pipeline) -> None:
            build(pipeline)
            found[label] = dealt_again(pipeline)

        return really(words, label, both)

    monkeypatch.setattr(launch, "run", run)
    options = BuildOptions(
        images=str(tmp_path / "drive"),
        atlas=str(tmp_path / "atlas"),
        shard_images=5,
        model="netvlad-lite",
        clusters=8,
        whiten=1,
        tile_images=400,
    )
    run_stages(AtlasStore.open(options.atlas, create=True), options, [], list(STAGES))
    assert {"ingest", "vocabulary", "describe", "pair", "verify", "reconstruct"} <= set(found)
    assert {label: names for label, names in found.items() if names} == {}
