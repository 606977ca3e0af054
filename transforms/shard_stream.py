"""Photographs of one shard after the other: read ahead, described in batches, given back by shard.

The last batch of a shard is filled with images of the next ones; a device does not wait between
them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from vladmap.atlas.reading import Read, Reader
from vladmap.console import counter as progress
from vladmap.models.batches import BatchDescriber, Ticket
from vladmap.models.computing import Description
from vladmap.schemas.rejects import PhotoError

Key = TypeVar("Key")

Row = dict[str, Any]


class Described(NamedTuple):
    """A row of `images/` with its photograph's description, or why there is none."""

    row: Row
    outcome: Description | PhotoError


@dataclass(eq=False)
class _Shard(Generic[Key]):
    """One whose photographs are on their way: `missing` of them are still being read."""

    key: Key
    missing: int
    photos: list[tuple[Row, Ticket | PhotoError]] = field(default_factory=list)
    done: int = 0  # of the first photographs, which are not looked at again

    @property
    def ready(self) -> bool:
        while self.done < len(self.photos):
            found = self.photos[self.done][1]
            if not (isinstance(found, PhotoError) or found.done()):
                return False
            self.done += 1
        return not self.missing

    def described(self) -> list[Described]:
        return [
            Described(row, found if isinstance(found, PhotoError) else found.result())
            for row, found in self.photos
        ]


class ShardStream(Generic[Key]):
    """Describes shards by a worker's reader and describer, which other streams may use, too.

    At most `ahead` photographs are read but not yet handed to the describer. Shards come back in
    the order in which they were fed.
    """

    def __init__(self, reader: Reader, describer: BatchDescriber, ahead: int) -> None:
        self._reader, self._describer, self._ahead = reader, describer, ahead
        self._reading: deque[tuple[_Shard[Key], Sequence[Row], Future[Read]]] = deque()
        self._rows_ahead = 0
        self._shards: deque[_Shard[Key]] = deque()

    def feed(self, key: Key, rows: Sequence[Row]) -> Iterator[tuple[Key, list[Described]]]:
        """Take the photographs of a shard; gives the shards that are whole by now."""
        shard = _Shard(key, len(rows))
        self._shards.append(shard)
        together = self._reader.together
        for start in range(0, len(rows), together):
            part = rows[start : start + together]
            while self._reading and self._rows_ahead + len(part) > self._ahead:
                self._take()
                yield from self._whole()
            self._reading.append((shard, part, self._reader.submit(part)))
            self._rows_ahead += len(part)
        yield from self._whole()

    def finish(self) -> Iterator[tuple[Key, list[Described]]]:
        """All shards that have not been given back; waits for them."""
        while self._reading:
            self._take()
            yield from self._whole()
        self._describer.flush()
        while self._shards:
            shard = self._shards.popleft()
            yield shard.key, shard.described()

    def abandon(self) -> None:
        """Forget what is on its way: its shards will be fed again."""
        for _, _, future in self._reading:
            future.add_done_callback(self._give_back)
        self._reading.clear()
        self._shards.clear()
        self._rows_ahead = 0

    def _take(self) -> None:
        """Hand the photographs that were asked for first to the describer."""
        shard, rows, future = self._reading.popleft()
        self._rows_ahead -= len(rows)
        read = future.result()
        try:
            for photo in read.photos:
                found: Ticket | PhotoError
                if photo.error is not None:
                    found = photo.error
                else:
                    picture = photo.encoded if photo.encoded is not None else photo.pixels
                    assert picture is not None
                    found = self._describer.add(picture)
                shard.photos.append((photo.row, found))
                shard.missing -= 1
        finally:
            self._reader.give_back(read)
        progress.advance(len(rows))

    def _give_back(self, future: Future[Read]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._reader.give_back(future.result())

    def _whole(self) -> Iterator[tuple[Key, list[Described]]]:
        while self._shards and self._shards[0].ready:
            shard = self._shards.popleft()
            yield shard.key, shard.described()
