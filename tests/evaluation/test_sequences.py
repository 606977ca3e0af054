from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vladmap.evaluation.intervals import groups_of, share_interval
from vladmap.evaluation.sequences import check_drives, in_drives, method_of, ranked_in_drives
from vladmap.models import load_model
from vladmap.photos.layouts import EvaluationSet, read_frames
from vladmap.photos.places import Places
from vladmap.retrieval.recall import figures
from vladmap.retrieval.sequences.matching import SequenceMethod
from vladmap.schemas.rejects import UserError

PHOTOS = (
    Path(os.environ.get("VLADMAP_PHOTOS", Path(__file__).parents[2].parent / "shared" / "photos"))
    / "gardens-point"
)


def places(drives: list[str], moments: list[float]) -> Places:
    count = len(drives)
    nowhere = np.full((count, 3), np.nan)
    return Places(
        tuple(Path(f"{row}.jpg") for row in range(count)), nowhere, ("",) * count,
        np.full(count, np.nan), tuple(drives), np.array(moments),
    )  # fmt: skip


def test_rows_are_put_in_the_order_of_their_drives_and_unknown_ones_stand_alone() -> None:
    order, recordings = in_drives(places(["b", "", "a", "b", "", "a"], [2, 0, 1, 1, 0, 0]))
    named = [["b2", "alone 1", "a1", "b1", "alone 4", "a0"][row] for row in order]
    assert [named[a:b] for a, b in recordings.spans()] == [
        ["a0", "a1"], ["alone 1"], ["alone 4"], ["b1", "b2"],
    ]  # fmt: skip


def test_a_ranking_is_of_the_set_as_it_stands_though_drives_are_not_in_order() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    mixed, other = rng.permutation(60), rng.permutation(60)
    database = places(["d"] * 60, mixed.tolist())
    queries = places(["q"] * 60, other.tolist())
    where = np.argsort(mixed)
    positives = [np.array([where[moment]]) for moment in other]
    chosen = EvaluationSet("frames", database, queries, positives, frames=0)
    for name in ("seqslam", "hmm", "seqslam-published"):
        found = ranked_in_drives(rows[other], rows[mixed], chosen, SequenceMethod(name))
        assert figures(found.ranking).recall(1) > 0.9
        assert np.array_equal(np.bincount(found.ranking.query), np.ones(60))
        right = found.ranking.rows[:, 0] == [each[0] for each in positives]
        assert np.array_equal(right, found.ranking.first() == 0)


def test_sets_without_drives_and_unknown_methods_are_one_clear_line() -> None:
    known, unknown = places(["a", "a"], [0, 1]), places(["", ""], [0, 0])
    positives = [np.array([0]), np.array([1])]
    with pytest.raises(UserError, match="of the database no drives are known"):
        check_drives(EvaluationSet("csv", unknown, known, positives, metres=5))
    with pytest.raises(UserError, match="apart from the database"):
        check_drives(EvaluationSet("csv", known, known, positives, metres=5, leave_one_out=True))
    with pytest.raises(UserError, match="--sequence slam"):
        method_of("slam")


def test_drives_are_drawn_whole_so_that_the_interval_is_wide_where_they_fail_together() -> None:
    drives = [f"{row // 50:02d}" for row in range(1000)]
    of = groups_of(places(drives, list(range(1000))))
    assert (of.count, of.of) == (20, "drives")
    together = share_interval(np.arange(1000) // 50 % 2 == 0, of)
    apart = share_interval(np.arange(1000) % 2 == 0, of)
    assert together.low < 0.35
    assert together.high > 0.65
    assert apart.low == apart.high == 0.5
    half = share_interval(np.ones(1000, bool), of, np.arange(1000) < 500)
    assert half.low == half.high == 1.0


def test_few_drives_are_cut_into_stretches() -> None:
    of = groups_of(places(["a"] * 45 + ["b"] * 10, list(range(55))))
    assert np.bincount(of.number).tolist() == [20, 20, 5, 10]
    assert groups_of(places(["", ""], [0, 0])).of == "photographs"


@pytest.mark.medium
@pytest.mark.skipif(not PHOTOS.exists(), reason="the photographs of Gardens Point are not there")
@pytest.mark.parametrize(("method", "least"), [("seqslam", 0.95), ("hmm", 0.98)])
def test_a_real_walk_is_found_by_its_thumbnails(method: str, least: float) -> None:
    """Of single thumbnails a third is found within two frames."""
    chosen = read_frames(PHOTOS, 2)
    model = load_model("thumbnail")

    def described(paths: tuple[Path, ...]) -> np.ndarray:
        return model.describe([np.asarray(Image.open(path).convert("RGB")) for path in paths])

    rows = [described(side.paths) for side in (chosen.queries, chosen.database)]
    found = ranked_in_drives(*rows, chosen, SequenceMethod(method))
    assert figures(found.ranking).recall(1) >= least
