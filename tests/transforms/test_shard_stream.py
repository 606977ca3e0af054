"""Shards in a stream: batches cross them, they come back in order, a failure loses nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.models.test_batches import Means, grey
from vladmap.atlas.photographs import Photo
from vladmap.atlas.reading import Read, Reader, Rows
from vladmap.models.batches import BatchDescriber
from vladmap.models.computing import Description
from vladmap.schemas.rejects import PhotoError, RejectReason
from vladmap.transforms.shard_stream import Described, ShardStream


class Greys(Reader):
    """Reads rows that say their grey and height; counts what is not given back."""

    def __init__(self, together: int = 1) -> None:
        self.together = together
        self.out, self.most_out = 0, 0
        self._lock, self._pool = threading.Lock(), ThreadPoolExecutor(3)

    def submit(self, rows: Rows) -> Future[Read]:
        with self._lock:
            self.out += len(rows)
            self.most_out = max(self.most_out, self.out)
        return self._pool.submit(lambda: Read([self._photo(row) for row in rows]))

    def _photo(self, row: dict[str, Any]) -> Photo:
        if row["grey"] is None:
            return Photo(row, error=PhotoError(RejectReason.CHANGED, "changed"))
        return Photo(row, grey(row["grey"], row.get("height", 4)))

    def give_back(self, read: Read) -> None:
        with self._lock:
            self.out -= len(read.photos)

    def close(self) -> None:
        self._pool.shutdown()


def shards() -> list[tuple[str, list[dict[str, Any]]]]:
    """Of 1 to 7 images and none, of two sizes; the third image of each cannot be read."""
    made = []
    for number, count in enumerate((3, 1, 7, 0, 5, 2, 6)):
        rows: list[dict[str, Any]] = [
            {"grey": None if n == 2 else 10 * number + n, "height": 4 + n % 2} for n in range(count)
        ]
        made.append((f"s{number}", rows))
    return made


@pytest.fixture
def describer() -> Iterator[BatchDescriber]:
    made = BatchDescriber(Means(), 4, 2)
    yield made
    made.close()


def streamed(
    stream: ShardStream[str], given: Sequence[tuple[str, list[dict[str, Any]]]]
) -> list[tuple[str, list[Described]]]:
    found = [done for key, rows in given for done in stream.feed(key, rows)]
    return [*found, *stream.finish()]


def require_whole(found: list[tuple[str, list[Described]]]) -> None:
    assert [key for key, _ in found] == [key for key, _ in shards()]
    for (_, described), (_, rows) in zip(found, shards(), strict=True):
        assert [one.row for one in described] == rows
        for row, outcome in described:
            if row["grey"] is None:
                assert isinstance(outcome, PhotoError)
            else:
                assert isinstance(outcome, Description)
                assert outcome.descriptor[0] == row["grey"]


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("ahead", [3, 100])
def test_shards_come_back_whole_and_in_order_and_batches_cross_them(
    together: int, ahead: int, describer: BatchDescriber
) -> None:
    reader = Greys(together)
    require_whole(streamed(ShardStream(reader, describer, ahead), shards()))
    model = describer._computer._model
    assert isinstance(model, Means)
    # 20 images in shards of at most 6 readable ones of one size: without crossing 11 batches.
    images = [row for _, rows in shards() for row in rows if row["grey"] is not None]
    assert sum(count for count, *_ in model.batches) == len(images) == 20
    assert len(model.batches) <= 6
    assert max(count for count, *_ in model.batches) == 4
    assert reader.out == 0
    assert reader.most_out <= max(ahead, together)
    reader.close()


def test_a_shard_comes_back_before_the_last_was_fed(describer: BatchDescriber) -> None:
    reader = Greys()
    stream: ShardStream[int] = ShardStream(reader, describer, 4)
    early = [key for n in range(40) for key, _ in stream.feed(n, [{"grey": n}] * 4)]
    assert early == sorted(early)
    assert early  # what is open is bounded by what is on its way, not by the number of shards
    assert [*early, *(key for key, _ in stream.finish())] == list(range(40))
    reader.close()


def test_what_a_failed_try_left_on_its_way_is_given_back_and_the_next_try_is_whole(
    describer: BatchDescriber,
) -> None:
    reader = Greys(2)
    stream: ShardStream[str] = ShardStream(reader, describer, 6)
    for key, rows in shards()[:3]:
        list(stream.feed(key, rows))
    assert reader.out > 0
    stream.abandon()
    require_whole(streamed(stream, shards()))
    reader.close()
    assert reader.out == 0


def test_streams_that_share_a_worker_do_not_mix(describer: BatchDescriber) -> None:
    reader = Greys()
    streams: list[ShardStream[str]] = [ShardStream(reader, describer, 5) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda stream: streamed(stream, shards()), streams))
    for each in found:
        require_whole(each)
    reader.close()


def test_a_batch_that_fails_is_raised_where_its_shard_ends() -> None:
    describer = BatchDescriber(Means(refuse=7.0), 4, 1)
    reader = Greys()
    stream: ShardStream[str] = ShardStream(reader, describer, 5)
    with pytest.raises(RuntimeError, match="no such grey"):
        streamed(stream, [("good", [{"grey": 1}]), ("bad", [{"grey": 7}])])
    stream.abandon()
    found = streamed(stream, [("good", [{"grey": 1}])])
    assert np.array_equal([one.outcome.descriptor[0] for one in found[0][1]], [1])  # type: ignore[union-attr]
    reader.close()
    describer.close()
