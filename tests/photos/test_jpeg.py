"""JPEGs that are damaged in the middle are found; those that cameras write oddly are not."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from tests.photos.bad_photos import encode
from tests.photos.damage import KINDS, damaged, jpegs, picture, scan_of
from vladmap.photos.decoding import jpeg
from vladmap.photos.decoding.decode import decode_rgb, inspect
from vladmap.schemas.rejects import PhotoError, RejectReason

pytestmark = pytest.mark.medium

CASES = Path(__file__).parents[1] / "cases" / "damaged"
READERS: tuple[Callable[[bytes], object], ...] = (
    inspect,
    decode_rgb,
    lambda data: decode_rgb(data, target=lambda width, height: (width // 5, height // 5)),
)


def verdict(data: bytes, read: Callable[[bytes], object] = inspect) -> PhotoError | None:
    try:
        read(data)
    except PhotoError as error:
        return error
    return None


def percent(error: PhotoError) -> float:
    return float(re.findall(r"about (\d+) %", error.detail)[0])


class TestDamage:
    def test_of_sixty_damaged_in_the_middle_all_but_three_at_most_are_found(self) -> None:
        """Issue 19, 9: with the share lost; of the sixty good ones none is accused."""
        generator = np.random.default_rng(0)
        missed = []
        for number, good in enumerate(jpegs(60)):
            assert verdict(good) is None
            kind = KINDS[number % len(KINDS)]
            error = verdict(damaged(good, kind, generator))
            if error is None:
                missed.append((number, kind))
                continue
            assert error.reason is RejectReason.DECODE_FAILED
            assert 0 < percent(error) <= 100
        assert len(missed) <= 3, missed

    @pytest.mark.parametrize("read", READERS)
    @pytest.mark.parametrize("options", [{}, {"progressive": True}])
    def test_damage_is_found_wherever_pixels_are_read(self, read, options) -> None:
        """Issue 19, 9: at full size, reduced, and in the luminance alone."""
        data = damaged(encode(picture(1), **options), "zeros", np.random.default_rng(1))
        error = verdict(data, read)
        assert error is not None
        assert error.reason is RejectReason.DECODE_FAILED
        assert "damaged in the middle" in error.detail

    def test_cmyk_is_proven_too(self) -> None:
        """Issue 19, 9: Pillow converts it, TurboJPEG proves it."""
        good = encode(picture(2).convert("CMYK"))
        assert verdict(good) is None
        error = verdict(damaged(good, "cut", np.random.default_rng(2)))
        assert error is not None
        assert error.reason is RejectReason.DECODE_FAILED

    @pytest.mark.parametrize("kind", ["cut", "foreign", "half_then_end_marker"])
    def test_the_share_lost_is_about_right(self, kind: str) -> None:
        """Issue 19, 9: against the pixels of the undamaged file, for what is coded in one pass."""
        generator = np.random.default_rng(3)
        errors = []
        for seed in range(8):
            good = encode(picture(seed))
            start, end = scan_of(good)
            error = verdict(damaged(good, kind, generator))
            assert error is not None
            # The generator drew the place: draw it again.
            replay = np.random.default_rng(3)
            for _ in range(seed + 1):
                share = 1 - replay.uniform(0.2, 0.8)
                if kind == "foreign":
                    replay.bytes(min(2048, (end - start) // 10))
            errors.append(abs(percent(error) - 100 * share))
        assert np.median(errors) < 10

    @pytest.mark.parametrize(
        "name", ["zeros_4k", "foreign_16k", "cut_out_4k", "half_then_end_marker", "zero_tail"]
    )
    def test_the_cases_are_rejected_with_the_share_lost(self, name: str) -> None:
        """Issue 19, 9: cases/damaged."""
        data = (CASES / f"{name}.jpg").read_bytes()
        for read in READERS:
            error = verdict(data, read)
            assert error is not None
            assert error.reason in (RejectReason.DECODE_FAILED, RejectReason.TRUNCATED)
            assert 0 < percent(error) <= 100

    def test_the_good_case_is_accepted(self) -> None:
        """Issue 19, 9: cases/damaged."""
        data = (CASES / "good.jpg").read_bytes()
        for read in READERS:
            assert verdict(data, read) is None

    def test_a_truncated_file_says_what_is_missing(self) -> None:
        """Issue 19, 9: a download that stopped at half of its data."""
        good = encode(picture(4))
        start, end = scan_of(good)
        error = verdict(good[: (start + end) // 2])
        assert error is not None
        assert error.reason is RejectReason.TRUNCATED
        assert percent(error) == pytest.approx(50, abs=12)


def with_segment(data: bytes, body: bytes) -> bytes:
    return data[:2] + body + data[2:]


def first_scan(data: bytes) -> int:
    return data.index(b"\xff\xda")


ODD: dict[str, Callable[[bytes], bytes]] = {
    "bytes after the end": lambda data: data + b"\0" * 700 + b"SEFT trailer of a maker",
    "a second picture behind it": lambda data: data + encode(picture(9, 64, 48)),
    "zeros before the end marker": lambda data: data[:-2] + bytes(40) + data[-2:],
    "fill bytes before the end marker": lambda data: data[:-2] + b"\xff" * 40 + data[-2:],
    "stray bytes between segments": lambda data: (
        data[: first_scan(data)] + b"\0\0\0" + data[first_scan(data) :]
    ),
    "an unknown revision of JFIF": lambda data: data.replace(b"JFIF\0\1\1", b"JFIF\0\7\2", 1),
    "wrong spectral selection": lambda data: (
        data[: first_scan(data) + 11] + b"\0\0\0" + data[first_scan(data) + 14 :]
    ),
    "an unknown Adobe transform": lambda data: with_segment(
        data, b"\xff\xee" + struct.pack(">H", 14) + b"Adobe" + b"\0\x64\0\0\0\0\7"
    ),
    "a broken colour profile": lambda data: with_segment(
        data, b"\xff\xe2" + struct.pack(">H", 18) + b"ICC_PROFILE\0" + b"\7\3ab"
    ),
}


class TestOddButGood:
    @pytest.mark.parametrize("name", ODD)
    def test_a_harmless_oddity_changes_nothing(self, name: str) -> None:
        """Issue 19, 9: real cameras write these, and every viewer shows them."""
        good = encode(picture(5), optimize=False)
        odd = ODD[name](good)
        assert odd != good
        assert (decode_rgb(odd) == decode_rgb(good)).all()
        assert inspect(odd)[1] == inspect(good)[1]

    @pytest.mark.parametrize("name", ODD)
    def test_damage_does_not_hide_behind_a_harmless_oddity(self, name: str) -> None:
        """Issue 19, 9: libjpeg tells only its first warning."""
        if name == "a second picture behind it":
            pytest.skip("its own damage, behind the photograph, is no one's")
        bad = damaged(encode(picture(6)), "cut", np.random.default_rng(6))
        assert verdict(bad) is not None
        assert verdict(ODD[name](bad)) is not None

    def test_left_over_bytes_are_damage_where_they_are_no_padding(self) -> None:
        """Issue 19, 9: a decoder that lost its place may end before the data do."""
        good = encode(picture(7))
        left_over = bytes(range(1, 60))
        error = verdict(good[:-2] + left_over + good[-2:])
        assert error is not None
        assert error.reason is RejectReason.DECODE_FAILED


class TestPixels:
    @pytest.mark.parametrize("scale", [1, 2, 4, 8])
    @pytest.mark.parametrize("mode", [None, "L"])
    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("RGB", {}),
            ("RGB", {"subsampling": 0}),
            ("RGB", {"subsampling": 1}),
            ("RGB", {"progressive": True}),
            ("RGB", {"restart_marker_blocks": 5}),
            ("RGB", {"keep_rgb": True}),
            ("L", {}),
        ],
    )
    def test_they_are_those_that_pillow_reads(self, kind, options, mode, scale) -> None:
        """Issue 19, 9: descriptors and features of good photographs stay as they were."""
        data = encode(picture(8, 1003, 757).convert(kind), **options)
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        if mode or scale > 1:
            image.draft(mode, (1003 // scale, 757 // scale))
        found = jpeg.decode(data, image.mode, image.size)
        assert found is not None
        image.load()
        assert (found == np.asarray(image)).all()

    def test_chroma_that_turbojpeg_does_not_know_is_left_to_pillow(self) -> None:
        image = picture(9)
        data = bytearray(encode(image, subsampling=2))
        frame = data.index(b"\xff\xc0")
        data[frame + 11] = 0x42  # four luminance blocks across, two down: 4:1:0
        assert jpeg.decode(bytes(data), "RGB", image.size) is None
        grey = Image.new("RGB", (64, 32), (90, 90, 90))
        small = bytearray(encode(grey, subsampling="4:2:0"))
        assert decode_rgb(bytes(small)).shape == (32, 64, 3)


class TestStructure:
    def test_of_a_file_by_hand(self) -> None:
        data = (
            b"\xff\xd8" + b"\xff\xff\xff\xe0\0\4ab" + b"xy" + b"\xff\xc0\0\3a" + b"\xff\xda\0\3a"
            b"12\xff\0\xff\xd034" + b"\xff\xda\0\2" + b"56" + b"\xff\xd9" + b"\xff\xda"
        )
        found = jpeg.structure(data)
        assert [marker for marker, _, _ in found.segments] == [0xE0, 0xC0, 0xDA, 0xDA]
        assert [data[start:end] for start, end in found.scans] == [b"12\xff\0\xff\xd034", b"56"]
        assert (found.fill, found.stray) == (2, 2)
        assert data[found.end :] == b"\xff\xd9\xff\xda"

    def test_of_any_bytes_it_ends(self) -> None:
        generator = np.random.default_rng(0)
        for length in range(200):
            noise = generator.choice([0, 1, 0xD0, 0xD9, 0xDA, 0xE0, 0xFF], length)
            jpeg.structure(b"\xff\xd8" + noise.astype(np.uint8).tobytes())
