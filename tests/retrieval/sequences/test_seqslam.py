"""SeqSLAM against a plain loop over images, rows and velocities, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.retrieval.sequences.drives import descriptors, seen_again
from vladmap.retrieval.sequences import seqslam
from vladmap.retrieval.sequences.evidence import (
    Likelihood,
    LocalContrast,
    Standardised,
    without_mean,
)
from vladmap.retrieval.sequences.recordings import Recordings
from vladmap.retrieval.sequences.seqslam import SeqSlam, scores

Floats = NDArray[np.float64]

DATABASE = ["a"] * 37 + ["b"] * 2 + ["c"] * 24
QUERIES = ["x"] * 30 + ["y"] * 11


def drives() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    database = descriptors(len(DATABASE), 0)
    database[5] = database[50] = 0  # photographs without a descriptor
    queries = seen_again(descriptors(len(DATABASE), 0)[2 : 2 + len(QUERIES)], 1.0, 1)
    queries[7] = 0
    return queries, database


def enhanced_by_loop(queries: Floats, database: Floats, reach: int) -> Floats:
    """Equation 2 of the paper, cell by cell; NaN where there is no descriptor."""
    z = np.full((len(queries), len(database)), np.nan)
    for t, query in enumerate(queries):
        if not query.any():
            continue
        for n in range(len(database)):
            if not database[n].any():
                continue
            near = [
                math.sqrt(max(0.0, 2 - 2 * float(query @ database[m])))
                for m in range(max(0, n - reach // 2), min(len(database), n + reach // 2 + 1))
                if DATABASE[m] == DATABASE[n] and database[m].any()
            ]
            own = math.sqrt(max(0.0, 2 - 2 * float(query @ database[n])))
            spread = np.std(near, ddof=1) if len(near) >= 3 else 0.0
            z[t, n] = (own - np.mean(near)) / spread if spread > 1e-6 else 0.0
    return z


def searched_by_loop(z: Floats, search: SeqSlam) -> Floats:
    """Every trajectory through every cell, one photograph at a time."""
    count = round((search.fastest - search.slowest) / search.step) + 1
    velocities = [search.slowest + k * search.step for k in range(count)]
    last = (search.frames - 1) // 2 if search.centred else 0
    best = [None if np.isnan(row).all() else int(np.nanargmin(row)) for row in z]
    out = np.full(z.shape, np.inf)
    for t in range(z.shape[0]):
        window = [
            k
            for k in range(last - search.frames + 1, last + 1)
            if 0 <= t + k < len(z) and QUERIES[t + k] == QUERIES[t]
        ]
        for n in range(z.shape[1]):
            held = 0
            for k in window:
                row = best[t + k]
                if row is not None and DATABASE[row] == DATABASE[n]:
                    ends = sorted(moved(k, v) for v in (velocities[0], velocities[-1]))
                    held += ends[0] <= row - n <= ends[1]
            if search.search == "cone":
                out[t, n] = 1 - held / len(window)
                continue
            for velocity in velocities:
                total, holds = 0.0, False
                for k in window:
                    row = n + moved(k, velocity)
                    if 0 <= row < z.shape[1] and DATABASE[row] == DATABASE[n]:
                        total += 0.0 if np.isnan(z[t + k, row]) else z[t + k, row]
                        holds |= row == best[t + k]
                if search.search == "trajectory" or holds:
                    out[t, n] = min(out[t, n], total / len(window))
    return out


def moved(photographs: int, velocity: float) -> int:
    size = math.floor(abs(photographs * velocity) + 0.5 + 1e-9)
    return size if photographs > 0 else -size


def whole(blocks: object, shape: tuple[int, int]) -> Floats:
    out = np.full(shape, np.nan)
    for start, part in blocks:  # type: ignore[attr-defined]
        assert np.isnan(out[start : start + len(part)]).all()
        out[start : start + len(part)] = part
    return out


def test_contrast_is_enhanced_as_by_the_papers_loop() -> None:
    queries, database = drives()
    found = LocalContrast(queries, database, Recordings.of(DATABASE), 10).block(0, len(queries))
    expected = enhanced_by_loop(queries.astype(np.float64), database.astype(np.float64), 10)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.nanmax(np.abs(found - expected)) < 5e-5  # distances are of float32


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("search", seqslam.SEARCHES)
def test_the_search_is_that_of_a_plain_loop(
    search: str, centred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seqslam, "NUMBERS_AT_ONCE", 20 * len(DATABASE))
    monkeypatch.setattr(seqslam, "_CACHED", 9 * len(DATABASE))
    queries, database = drives()
    settings = SeqSlam(frames=8, search=search, centred=centred)
    evidence = LocalContrast(queries, database, Recordings.of(DATABASE))
    blocks = scores(evidence, Recordings.of(QUERIES), Recordings.of(DATABASE), settings)
    found = whole(blocks, (len(queries), len(database)))
    expected = searched_by_loop(evidence.block(0, len(queries)).astype(np.float64), settings)
    assert np.array_equal(np.isinf(found), np.isinf(expected))
    finite = np.isfinite(expected)
    assert finite.any()
    assert np.abs(found[finite] - expected[finite]).max() < 1e-6


def test_lines_have_the_papers_velocities_and_are_symmetrical() -> None:
    lines = SeqSlam(frames=11).lines()
    # 5 photographs further: 0.8 to 1.2 rows each.
    assert sorted(set(lines[:, -1].tolist())) == [4, 5, 6]
    assert {tuple(-line[::-1]) for line in lines} == {tuple(line) for line in lines}


def test_a_window_finds_what_single_photographs_do_not() -> None:
    database = descriptors(300, 3)
    queries = seen_again(database, 3.0, 4, changed=1.0)
    one = Recordings.one(300)

    def right(frames: int) -> float:
        evidence = Standardised(without_mean(queries, one), without_mean(database, one))
        blocks = scores(Likelihood(evidence), one, one, SeqSlam(frames=frames))
        found = whole(blocks, (300, 300)).argmin(axis=1)
        return float((np.abs(found - np.arange(300)) <= 1).mean())

    assert right(1) < 0.75
    assert right(20) > 0.95


def test_a_recordings_mean_is_taken_from_it() -> None:
    rows = descriptors(400, 5)
    shifted = rows + np.float32(2.0) * rows[0]
    shifted /= np.linalg.norm(shifted, axis=1, keepdims=True)
    shifted[9] = 0
    found = without_mean(shifted.astype(np.float32), Recordings.of(["a"] * 200 + ["b"] * 200))
    assert not found[9].any()
    lengths = np.linalg.norm(np.delete(found, 9, axis=0), axis=1)
    assert np.allclose(lengths, 1, atol=1e-5)
    # Of 200 rows and 32 that stand for all, nearly nothing in common is left.
    assert np.linalg.norm(shifted[:200].mean(axis=0)) > 0.8
    assert np.linalg.norm(found[:200].mean(axis=0)) < 0.1


def test_z_is_standardised_along_both_sides_and_causal_use_sees_no_later_query(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queries, database = descriptors(500, 1), descriptors(300, 2)
    database[4] = queries[8] = 0
    z = Standardised(queries, database).block(0, 500)
    assert np.isnan(z[8]).all()
    assert np.isnan(z[:, 4]).all()
    cosines = np.delete(np.delete(queries, 8, 0).astype(np.float64) @ database.T, 4, 1)
    by_query = -(cosines - cosines.mean(axis=1, keepdims=True)) / cosines.std(axis=1, keepdims=True)
    total, square = by_query.sum(axis=0), (by_query**2).sum(axis=0)
    mean = total / (499 + 32)
    expected = (by_query - mean) / np.sqrt((square + 32) / (499 + 32) - mean**2)
    assert np.abs(np.delete(np.delete(z, 8, 0), 4, 1) - expected).max() < 1e-4
    first = Standardised(queries[:20], database, causal=True).block(0, 20)
    assert np.array_equal(
        first, Standardised(queries, database, causal=True).block(0, 20), equal_nan=True
    )


def test_the_likelihood_is_that_of_the_mixture_and_nothing_seen_is_no_evidence() -> None:
    class Fixed:
        def block(self, low: int, high: int) -> NDArray[np.float32]:
            return np.array([[-6.0, -3.0, 0.0, 4.0, np.nan]], np.float32)

    found = Likelihood(Fixed()).block(0, 1)[0]

    def density(z: float, mean: float) -> float:
        return math.exp(-((z - mean) ** 2) / 2)

    for cost, z in zip(found, [-6.0, -3.0, 0.0, 4.0], strict=False):
        ratio = (0.2 * density(z, -3) + 0.8 * density(z, 0)) / density(z, 0)
        assert cost == pytest.approx(-math.log(ratio), abs=1e-5)
    assert np.isnan(found[4])


def test_a_recording_in_two_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="together"):
        Recordings.of(["a", "b", "a"])
