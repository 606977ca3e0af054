"""Photographs read ahead, by threads and by processes: the same, bounded, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.photos.bad_photos import texture
from vladmap.atlas import reading
from vladmap.atlas.photographs import Photo
from vladmap.atlas.reading import How, ProcessReader, Read, Reader, ThreadReader
from vladmap.photos.ids import content_hash
from vladmap.schemas.rejects import RejectReason
from vladmap.weights.preprocessing import InputSize

ROOT = Path(__file__).resolve().parents[2]
SIZE = InputSize(32, 64)
HOW = How(10**7, SIZE.target)
SLOT = 3 * SIZE.most_pixels

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Photographs of two sizes and kinds, one that has changed, one that is cut off, one lost."""
    folder = tmp_path_factory.mktemp("photographs")
    found = []
    for number in range(24):
        name = f"{number:02d}.{'png' if number % 5 == 0 else 'jpg'}"
        size = (120, 96) if number % 2 else (96, 144)
        Image.fromarray(texture(number, *size)).save(folder / name)
        data = (folder / name).read_bytes()
        found.append({"uri": str(folder / name), "content_hash": content_hash(data)})
    found[3]["content_hash"] = "0" * 32
    cut = (folder / "07.jpg").read_bytes()[:800]
    (folder / "07.jpg").write_bytes(cut)
    found[7]["content_hash"] = content_hash(cut)
    (folder / "11.jpg").unlink()
    return found


def read_all(reader: Reader, rows: list[dict[str, Any]]) -> list[Photo]:
    """All rows, each photograph with pixels or a file of its own."""
    futures = [
        reader.submit(rows[start : start + reader.together])
        for start in range(0, len(rows), reader.together)
    ]
    return [photo for future in futures for photo in kept(reader, future)]


def kept(reader: Reader, future: Future[Read]) -> list[Photo]:
    read = future.result(60)
    photos = [
        Photo(
            p.row,
            None if p.pixels is None else p.pixels.copy(),
            p.error,
            None if p.encoded is None else replace(p.encoded, data=bytes(p.encoded.data)),
        )
        for p in read.photos
    ]
    reader.give_back(read)
    return photos


def same(one: Photo, other: Photo) -> bool:
    if one.row != other.row or repr(one.error) != repr(other.error):
        return False
    if one.encoded != other.encoded or (one.pixels is None) != (other.pixels is None):
        return False
    return one.pixels is None or np.array_equal(one.pixels, other.pixels)  # type: ignore[arg-type]


@pytest.fixture
def expected(rows: list[dict[str, Any]]) -> list[Photo]:
    reader = ThreadReader(HOW, 2)
    found = read_all(reader, rows)
    reader.close()
    errors = {n: p.error.reason for n, p in enumerate(found) if p.error is not None}
    assert errors == {
        3: RejectReason.CHANGED, 7: RejectReason.TRUNCATED, 11: RejectReason.MISSING
    }  # fmt: skip
    return found


@contextlib.contextmanager
def processes(**settings: Any) -> Iterator[ProcessReader]:
    reader = ProcessReader(
        **{"how": HOW, "processes": 2, "slots": 32, "slot_bytes": SLOT, **settings}
    )
    try:
        yield reader
    finally:
        started = reader.running
        reader.close()
        assert not any(map(alive, started))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("slots", "slot_bytes"), [(32, SLOT), (3, SLOT), (0, SLOT), (32, 1000)])
def test_processes_read_what_threads_read_with_and_without_room_in_shared_memory(
    rows: list[dict[str, Any]], expected: list[Photo], slots: int, slot_bytes: int
) -> None:
    with processes(slots=max(slots, 1), slot_bytes=slot_bytes) as reader:
        if slots == 0:
            reader._free.clear()
        assert all(map(same, read_all(reader, rows), expected))
        assert len(reader.running) == 2
        free = len(reader._free)
        assert all(map(same, read_all(reader, rows), expected))
        assert len(reader._free) == free


def test_jpegs_stay_files_where_they_are_decoded_elsewhere(rows: list[dict[str, Any]]) -> None:
    as_files = How(HOW.max_pixels, HOW.target, as_files=True)
    threads = ThreadReader(as_files, 1)
    expected = read_all(threads, rows)
    threads.close()
    with processes(how=as_files, slot_bytes=2500) as reader:
        found = read_all(reader, rows)
    assert all(map(same, found, expected))
    for number, photo in enumerate(found):
        readable = photo.error is None
        assert (photo.encoded is not None) == (readable and number % 5 != 0)
        if photo.encoded is not None:
            assert bytes(photo.encoded.data) == Path(photo.row["uri"]).read_bytes()
    sizes = [len(photo.encoded.data) for photo in found if photo.encoded is not None]
    assert min(sizes) < 2500 < max(sizes)  # some do not fit a slot


def test_a_killed_process_costs_nothing(rows: list[dict[str, Any]], expected: list[Photo]) -> None:
    with processes() as reader:
        read_all(reader, rows)
        for process in reader.running:
            os.kill(process, signal.SIGKILL)
        assert all(map(same, read_all(reader, rows), expected))
        assert len(reader.running) == 2


KILLS = """
import os, signal
from vladmap.atlas import photographs, reading_process
read = photographs.photo_bytes
def photo_bytes(uri, max_pixels):
    if uri.endswith("04.jpg"):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(uri, max_pixels)
photographs.photo_bytes = photo_bytes
reading_process.main()
"""


def test_a_photograph_that_ends_its_process_twice_is_rejected_alone(
    rows: list[dict[str, Any]], expected: list[Photo], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "kills.py").write_text(KILLS)
    start = reading.started

    def started(words: list[str], **settings: Any) -> subprocess.Popen[bytes]:
        return start([words[0], str(tmp_path / "kills.py"), *words[3:]], **settings)

    monkeypatch.setattr(reading, "started", started)
    with processes() as reader:
        found = read_all(reader, rows)
    error = found[4].error
    assert error is not None
    assert error.reason is RejectReason.CRASHED
    assert "-9" in error.detail
    others = [n for n in range(len(rows)) if n != 4]
    assert all(same(found[n], expected[n]) for n in others)


PARENT = """
import sys, time
from vladmap.atlas.reading import How, ProcessReader
from vladmap.weights.preprocessing import InputSize
if __name__ == "__main__":
    size = InputSize(32, 64)
    reader = ProcessReader(How(10**7, size.target), 2, 8, 3 * size.most_pixels)
    [reader.submit([{"uri": "nowhere", "content_hash": ""}]).result() for _ in range(9)]
    print(*reader.running, flush=True)
    time.sleep(600)
"""


def test_processes_end_with_the_one_that_started_them_even_where_that_is_killed() -> None:
    before = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else set()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert parent.stdout is not None
    children = [int(word) for word in parent.stdout.readline().split()]
    assert children
    assert all(map(alive, children))
    parent.kill()
    parent.wait()
    end = time.monotonic() + 60
    while any(map(alive, children)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(alive, children))
    # The memory has no name that could be left behind.
    left = set(Path("/dev/shm").iterdir()) - before if before else set()
    assert not [path for path in left if "vladmap" in path.name or "psm_" in path.name]
