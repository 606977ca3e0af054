"""What options make stale, by the declarations of the steps."""

from __future__ import annotations

import dataclasses

from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.staleness import changed_settings, propagated

TITLES = [step.title for stage in STAGES.values() for step in stage.steps]


def stale(**changed: object) -> set[str]:
    before = BuildOptions()
    now = dataclasses.replace(before, **changed)  # type: ignore[arg-type]
    return {title for title, names in propagated(changed_settings(before, now)).items() if names}


def test_steps_read_results_of_steps_before_them_and_settings_that_these_have() -> None:
    """`stale` goes through the steps once, in their order."""
    settings = {
        step.title: set(step.settings(BuildOptions()))
        for stage in STAGES.values()
        for step in stage.steps
    }
    for stage in STAGES.values():
        for step in stage.steps:
            for other in step.after:
                title, _, setting = other.partition(":")
                assert TITLES.index(title) < TITLES.index(step.title)
                assert not setting or setting in settings[title]


def test_images_in_other_shards_make_all_anew_but_words_and_what_is_said_of_cameras() -> None:
    for changed in ({"shard_images": 50}, {"cell_resolution": 9}):
        lasting = {"plan", "ingest", "vocabulary", "train index", "cameras", "report"}
        assert stale(**changed) == set(TITLES) - lasting


def test_other_drives_reach_the_pairs_and_no_descriptor() -> None:
    found = stale(sequence_gap_m=30.0)
    later = {"organise", "pair", "verify", "judge pairs", "reconstruct", "merge", "coverage"}
    assert found == {*later, "loops"}


def test_another_bound_of_tiles_makes_maps_anew_and_no_pair() -> None:
    assert stale(tile_images=300) == {"reconstruct", "merge", "coverage"}


def test_an_option_that_only_counts_with_another_makes_nothing_stale_without_it() -> None:
    assert stale(patch_size=8, patch_dimension=64, rerank_candidates=9) == set()
    assert stale(rerank="rapid", patch_size=8) >= {"vocabulary", "describe", "pair"}
