"""A process that reads photographs for another one, into memory that both have: `atlas.reading`.

It ends when the pipe to it closes, and so with the process that started it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import sys
import traceback
from dataclasses import replace
from typing import Any

from vladmap.atlas.photographs import Photo
from vladmap.atlas.reading import How, InSlot


def main() -> None:
    """Answer what comes on stdin until it ends; the words are the memory's file and slot size."""
    file, slot_bytes = map(int, sys.argv[1:3])
    memory = mmap.mmap(file, 0)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print does not get among the answers
    with contextlib.suppress(EOFError, BrokenPipeError):
        how: How = pickle.load(requests)
        while True:
            rows, places = pickle.load(requests)
            try:
                found: list[Any] | str = [
                    _put(how.photo(row), memory, place, slot_bytes)
                    for row, place in zip(rows, places, strict=True)
                ]
            except Exception:
                found = traceback.format_exc()
            pickle.dump(found, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()


def _put(photo: Photo, memory: mmap.mmap, place: int | None, slot_bytes: int) -> Any:
    """A photograph without its row, or what is to be known of one that lies in its slot."""
    photo = replace(photo, row={})
    if place is None:
        return photo
    start = place * slot_bytes
    if photo.pixels is not None and photo.pixels.nbytes <= slot_bytes:
        memory[start : start + photo.pixels.nbytes] = photo.pixels.data.cast("B")
        return photo.pixels.shape
    if photo.encoded is not None and len(photo.encoded.data) <= slot_bytes:
        data = photo.encoded.data
        memory[start : start + len(data)] = bytes(data)
        return InSlot(len(data), replace(photo.encoded, data=b""))
    return photo


if __name__ == "__main__":
    main()
