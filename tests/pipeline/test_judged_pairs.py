"""Verified pairs are judged once, over the whole collection; what is thought of each is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.mapping.test_tile_merge import IMAGES, name_of
from tests.pipeline.test_unregistered import SHARDS, ends, entry, made
from vladmap.atlas import storage
from vladmap.atlas.integrity import check_atlas
from vladmap.mapping.judging import KEPT
from vladmap.mapping.view_graph.table import FITS
from vladmap.pipeline.report_data import gather
from vladmap.pipeline.run import Run
from vladmap.pipeline.stage import Step
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.stages.reconstruct import RECONSTRUCT
from vladmap.pipeline.stages.verify import VERIFY
from vladmap.pipeline.tiles import judge_pairs
from vladmap.pipeline.verdicts import publish_verdicts
from vladmap.schemas import tables
from vladmap.schemas.records import LedgerEntry, Task

FALSE = (name_of(2), name_of(20))
ID_OF_FALSE = (f"id-{FALSE[0]}", f"id-{FALSE[1]}")


def judged(root: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Run, list[Task]]:
    """The stage's tasks for a street of 24 photographs, of which two far apart look alike."""
    run = made(root, {})
    links = [(name_of(number), name_of(number + 1)) for number in range(IMAGES - 1)]
    for shard in SHARDS:
        mine = [pair for pair in links if (pair[1] < name_of(12)) == (shard == SHARDS[0])]
        mine += [FALSE] * (shard == SHARDS[1])
        entry(root, "verify", shard, f"two_views/{shard}.parquet", ends(mine, tables.TWO_VIEWS))
    entry(root, "fit", "graph", "work/pair_fits.parquet", FITS.empty_table())
    executed: list[Task] = []

    def execute(step: Step, tasks: list[Task], *_: Any, **__: Any) -> dict[str, LedgerEntry]:
        executed.extend(tasks if step is RECONSTRUCT else [])
        return {}

    monkeypatch.setattr(run, "execute", execute)
    run.options = run.options.__class__(**{**vars(run.options), **options})
    STAGES["reconstruct"].work(run)
    return run, executed


def test_a_false_pair_is_named_and_given_to_no_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 19, 0: judged before anything is cut, and not without a word."""
    run, tasks = judged(tmp_path, monkeypatch)
    rows = pq.read_table(tmp_path / "work" / "judged.parquet").to_pylist()
    assert len(rows) == IMAGES
    wrong = [row for row in rows if row["verdict"] != "kept"]
    assert [(row["image_id_a"], row["image_id_b"]) for row in wrong] == [
        (f"id-{FALSE[0]}", f"id-{FALSE[1]}")
    ]
    assert wrong[0]["verdict"] == "far"
    assert wrong[0]["distance_m"] > wrong[0]["limit_m"]
    [task] = tasks
    assert storage.read_table(f"{tmp_path}/{task.path('judged')}").to_pylist() == rows
    views = [
        row
        for file in (tmp_path / "two_views").iterdir()
        for row in pq.read_table(file).to_pylist()
    ]
    [view] = [row for row in views if (row["image_id_a"], row["image_id_b"]) == ID_OF_FALSE]
    assert view["verdict"] == "far"
    assert view["distance_m"] == pytest.approx(wrong[0]["distance_m"], abs=1e-3)
    # No pose graph holds a street of so few photographs.
    assert {row["probability"] for row in views} == {None}
    [remark] = [text for text in gather(run, pictures=False).remarks if "verified pairs" in text]
    assert remark.startswith("1 of 24 verified pairs are not trusted")


def test_verdicts_are_written_where_they_change_and_make_nothing_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = judged(tmp_path, monkeypatch)
    first = run.ledger(VERIFY)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "two_views").iterdir()}
    assert len(files) == 2
    pairs = judge_pairs(run)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    changed = replace(pairs.judgement, verdict=pairs.judgement.verdict.copy())
    [at] = np.flatnonzero(changed.verdict != KEPT)
    changed.verdict[at] = KEPT
    assert publish_verdicts(run, replace(pairs, judgement=changed), None) == 1
    second = run.ledger(VERIFY)
    assert {shard: entry.content for shard, entry in second.items()} == {
        shard: entry.content for shard, entry in first.items()
    }
    assert {shard for shard in first if first[shard].file != second[shard].file} == {
        pairs.pair_shard[at]
    }
    assert not [found for found in check_atlas(run.atlas) if "two_views" in found.path]


def test_a_shard_whose_new_file_was_not_entered_does_not_count_as_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed between a shard's file and its line in the ledger."""
    run, _ = judged(tmp_path, monkeypatch)
    pairs = judge_pairs(run)
    changed = replace(pairs.judgement, distance=pairs.judgement.distance + 1.0)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vladmap.atlas.commit.LedgerEntry.to_json", killed)
    with pytest.raises(KeyboardInterrupt):
        publish_verdicts(run, replace(pairs, judgement=changed), None)
    assert sorted(run.ledger(VERIFY, refresh=True)) == [SHARDS[1]]
