"""A photograph that asks for too much time or memory is a reject, and costs little."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.photos import hungry
from tests.photos.bad_photos import encode, exif_block, texture
from vladmap.photos.decoding import apart, bounds, jpeg
from vladmap.photos.decoding.decode import decode_here, decode_rgb, inspect, inspect_here
from vladmap.photos.files import read_photo
from vladmap.schemas.rejects import PhotoError, RejectReason

ROOT = Path(__file__).parents[2]
HUNGRY = Path(__file__).parents[1] / "cases" / "hungry" / "scans_300.jpg"


def reason(data: bytes, read=inspect) -> RejectReason | None:
    try:
        read(data)
    except PhotoError as error:
        return error.reason
    return None


class TestSeenBeforehand:
    @pytest.mark.parametrize("name", hungry.SEEN)
    @pytest.mark.parametrize("read", [inspect, decode_rgb])
    def test_what_a_file_claims_is_enough_to_reject_it(self, name, read, monkeypatch) -> None:
        """Issue 19, 15: nothing of it is decoded, here or elsewhere."""
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
        monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", None)
        monkeypatch.setattr(bounds, "decodes_apart", lambda name, data: False)
        assert reason(hungry.SEEN[name](), read) is RejectReason.TOO_COSTLY

    def test_the_case_is_rejected(self) -> None:
        """Issue 19, 15: cases/hungry."""
        assert reason(HUNGRY.read_bytes()) is RejectReason.TOO_COSTLY

    def test_the_limits_grow_with_max_pixels(self) -> None:
        data = encode(Image.new("L", (7_000, 7_000)), "PNG")
        bounds.require_memory("PNG", "RGBA", True, (6_000, 6_000), data, 200_000_000)
        with pytest.raises(PhotoError, match=r"takes 1\.2 GB, the limit .* is 1\.0 GB"):
            bounds.require_memory("PNG", "RGBA", True, (7_000, 7_000), data, 200_000_000)
        bounds.require_memory("PNG", "RGBA", True, (7_000, 7_000), data, 400_000_000)

    @pytest.mark.parametrize(
        ("name", "mode", "size"),
        [
            ("JPEG", "RGB", (12_000, 9_000)),  # 108 megapixels, as phones have them
            ("JPEG", "RGB", (16_384, 8_192)),  # a stitched panorama
            ("PNG", "RGB", (10_000, 8_000)),
            ("TIFF", "RGB", (10_000, 8_000)),
            ("WEBP", "RGB", (8_000, 5_000)),
        ],
    )
    def test_photographs_that_people_take_are_within_them(self, name, mode, size) -> None:
        """Issue 19, 15: a bound is no use that a real photograph meets."""
        data = encode(texture(3)) if name == "JPEG" else bytes(8_000_000)
        bounds.require_memory(name, mode, False, size, data, bounds.MAX_PIXELS)


@pytest.mark.medium
class TestEnded:
    @pytest.mark.parametrize("name", hungry.ENDED)
    def test_a_decoder_that_takes_too_long_is_ended(self, name, monkeypatch) -> None:
        """Issue 19, 15: what no look at the file can know, a process that can be ended does."""
        monkeypatch.setattr(apart, "SECONDS", 0)
        assert reason(hungry.ENDED[name]()) is RejectReason.TOO_COSTLY
        # The next photograph has a new process.
        monkeypatch.undo()
        assert reason(encode(texture(4), "TIFF")) is None

    def test_a_decoder_gets_no_more_memory_than_it_may(self) -> None:
        """Issue 19, 15: 240 kB of EXIF whose values, each all of it, are 4.8 GB."""
        if sys.platform != "linux":
            pytest.skip("this system does not hold a process to its memory")
        exif = b"eXIf" + hungry.exif_of_overlapping_values(20_000)
        data = hungry.png(64, 64, 8, 0, bytes(65 * 64), exif)
        assert bounds.decodes_apart("PNG", data)
        program = (
            "import sys, resource\nfrom vladmap.photos.decoding import apart\n"
            "from vladmap.photos.decoding.decode import inspect\n"
            "inspect(sys.stdin.buffer.read())\napart._close_idle()\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=data,
            capture_output=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert 1024 * int(done.stdout) < 1.1e9

    def test_a_decoder_that_dies_costs_its_photograph_alone(self, monkeypatch) -> None:
        """Issue 19, 15: a library's crash is a reject, and the next one is read."""
        worker = apart._take()
        worker._process.kill()
        apart._give_back(worker)
        data = encode(texture(6), "BMP")
        assert reason(data) is RejectReason.CRASHED
        assert reason(data) is None


class TestApart:
    @pytest.mark.parametrize("kind", ["TIFF", "BMP"])
    def test_it_gives_what_decoding_here_gives(self, kind: str) -> None:
        """Issue 19, 15: pixels, header, sharpness, errors, and what `target` asks for."""
        exif = {"exif": exif_block(base={274: 6})} if kind == "TIFF" else {}
        data = encode(texture(7), kind, **exif)
        assert bounds.decodes_apart(kind, data)
        for target in (None, lambda width, height: (width // 2, height // 3)):
            found = decode_rgb(data, target=target)
            expected = decode_here(data, bounds.MAX_PIXELS, target)
            assert found.dtype == np.uint8
            assert (found == expected).all()
            assert found.flags.writeable
        assert inspect(data) == inspect_here(data, bounds.MAX_PIXELS)
        for read in (inspect, decode_rgb):
            with pytest.raises(PhotoError) as caught:
                read(data[: len(data) // 2])
            assert caught.value.reason is RejectReason.TRUNCATED

    def test_an_error_of_the_caller_is_the_callers(self) -> None:
        data = encode(texture(8), "BMP")
        with pytest.raises(ZeroDivisionError):
            decode_rgb(data, target=lambda width, height: (1 // 0, 1))
        assert decode_rgb(data, target=lambda width, height: (20, 10)).shape == (10, 20, 3)

    def test_threads_have_a_process_each(self) -> None:
        files = [encode(texture(seed), "BMP") for seed in range(12)]
        with ThreadPoolExecutor(4) as pool:
            for data, found in zip(files, pool.map(decode_rgb, files), strict=True):
                assert (found == decode_here(data, bounds.MAX_PIXELS, None)).all()

    def test_what_cameras_write_is_decoded_here(self) -> None:
        """Issue 19, 15: bounds cost ordinary photographs nothing."""
        picture = texture(9, 400, 300)
        for kind, options in (
            ("JPEG", {}),
            ("JPEG", {"progressive": True}),
            ("PNG", {}),
            ("WEBP", {}),
        ):
            assert not bounds.decodes_apart(kind, encode(picture, kind, **options))

    def test_the_process_ends_with_the_one_that_started_it(self) -> None:
        program = (
            "import os, signal\nfrom vladmap.photos.decoding import apart\n"
            "print(apart._Worker()._process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        child = int(done.stdout)
        for _ in range(200):
            try:
                os.kill(child, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)
        raise AssertionError(f"process {child} is still there")


class TestFiles:
    def test_a_pipe_does_not_keep_its_reader_waiting(self, tmp_path: Path) -> None:
        """Issue 19, 15: put in a photograph's place after ingest."""
        os.mkfifo(tmp_path / "pipe.jpg")
        for path in (tmp_path / "pipe.jpg", tmp_path, "/dev/zero"):
            with pytest.raises(PhotoError) as caught:
                read_photo(path)
            assert caught.value.reason is RejectReason.NOT_A_FILE

    def test_a_file_larger_than_memory_is_not_read(self, tmp_path: Path) -> None:
        """Issue 19, 15: 300 GB, of which the disk holds nothing."""
        path = tmp_path / "sparse.jpg"
        with path.open("wb") as file:
            file.truncate(300 * 10**9)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(PhotoError, match="more than 268,435,456 bytes") as caught:
            read_photo(path)
        assert caught.value.reason is RejectReason.TOO_LARGE
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000

    def test_what_is_not_there_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(PhotoError) as caught:
            read_photo(tmp_path / "none.jpg")
        assert caught.value.reason is RejectReason.MISSING
