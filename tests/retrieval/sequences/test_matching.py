from __future__ import annotations

import numpy as np
import pytest

from tests.retrieval.sequences.drives import descriptors, seen_again
from vladmap.retrieval.names import SEQUENCE_METHODS
from vladmap.retrieval.sequences import matching
from vladmap.retrieval.sequences.matching import Drives, SequenceMethod, matched
from vladmap.retrieval.sequences.recordings import Recordings


def two_drives() -> tuple[Drives, Drives]:
    """150 rows in two recordings, and a drive along each."""
    database = descriptors(150, 0, 48)
    queries = seen_again(database[:100], 1.5, 1, changed=0.5)
    return (
        Drives(queries, Recordings.of(["x"] * 60 + ["y"] * 40)),
        Drives(database, Recordings.of(["a"] * 60 + ["b"] * 90)),
    )


@pytest.mark.parametrize("name", SEQUENCE_METHODS)
def test_every_method_finds_the_way_and_each_query_is_in_one_block(name: str) -> None:
    queries, database = two_drives()
    best = np.full(100, -1)
    for first, scores, nowhere in matched(queries, database, SequenceMethod.of(name)):
        assert (best[first : first + len(scores)] == -1).all()
        assert nowhere.mean() < 0.1
        best[first : first + len(scores)] = scores.argmax(axis=1)
    assert (np.abs(best - np.arange(100)) <= 1).mean() > 0.9


def test_a_model_of_the_nearest_rows_alone_finds_the_same_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queries, database = two_drives()

    def best() -> np.ndarray:
        found = [scores for _, scores, _ in matched(queries, database, SequenceMethod("hmm"))]
        return np.concatenate(found)

    every = best()
    monkeypatch.setattr(matching, "_DENSE", 1)
    monkeypatch.setattr(matching, "_LISTED", 2)
    few = best()
    assert np.isinf(few).any()
    assert np.array_equal(few.argmax(axis=1), every.argmax(axis=1))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slam", "'slam' is none of"),
        ("seqslam=1", "no photographs"),
        ("seqslam=2.5", "no photographs"),
        ("hmm=-1", "no metres"),
        ("hmm=far", "no metres"),
    ],
)
def test_a_method_that_is_none_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SequenceMethod.of(text)


def test_a_method_is_written_as_it_is_read() -> None:
    for text in ("seqslam", "seqslam=40", "hmm=12.5", "hmm=0", "delta=8"):
        assert str(SequenceMethod.of(text)) == text
