"""Decodes JPEG and detects damage by the decoder's warnings, which Pillow does not report.

libjpeg decodes damaged files and warns: after a run of zeros, a foreign block or a cut in the
entropy-coded data, the rest of the picture is shifted or grey. Pillow suppresses these warnings;
simplejpeg (TurboJPEG, the same libjpeg-turbo and the same pixels) reports the first one. Some
warnings are harmless, and cameras write files that cause them: their cause is removed here, and the
file is decoded again, since other warnings may follow the first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from vladmap.schemas.rejects import PhotoError, RejectReason

_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}

_SOS, _EOI, _APP0, _APP14 = 0xDA, 0xD9, 0xE0, 0xEE
FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_SEQUENTIAL, _PROGRESSIVE = {0xC0, 0xC1, 0xC9}, {0xC2, 0xCA}
# In entropy-coded data a 0xFF is followed by a stuffed zero or by a restart marker.
_END_OF_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_NOT_FILL = re.compile(rb"[^\xff]")
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_HARMLESS = ("unknown JFIF", "Invalid SOS parameters", "Unknown Adobe", "bad ICC")
# Not damage: layouts of chroma samples that TurboJPEG has no name for.
_NOT_FOR_TURBO = ("subsampling", "colorspace", "color conversion")
_UNSUPPORTED = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}  # lossless, hierarchical
_MOST_MENDINGS = 8
_RUN = 64  # equal bytes, by which damage is found in entropy-coded data


@dataclass
class Structure:
    """The parts of a JPEG file, by their byte positions.

    segments: (marker, start, end) of each segment before and between the scans, its marker's two
        bytes included.
    scans: (start, end) of each scan's entropy-coded data.
    fill, stray: bytes of 0xFF that stand before a marker for nothing, and any other bytes that do
        not belong to a segment; before the first scan.
    header: how many of the segments come before the first scan.
    end: of the image: where its end-of-image marker starts; None where there is none.
    """

    segments: list[tuple[int, int, int]] = field(default_factory=list)
    scans: list[tuple[int, int]] = field(default_factory=list)
    fill: int = 0
    stray: int = 0
    header: int = 0
    end: int | None = None

    @property
    def progressive(self) -> bool:
        return any(marker in _PROGRESSIVE for marker, _, _ in self.segments)


def structure(data: bytes, most_segments: int = 65_536, most_idle: int = 65_536) -> Structure:
    """Walk through a file's markers, to the first end-of-image marker or as far as they make sense.

    It ends where it has found `most_segments`, or `most_idle` bytes that mean nothing.
    """
    parts = Structure()
    position = 2
    while position + 2 <= len(data) and len(parts.segments) < most_segments:
        start, position = position, data.find(b"\xff", position)
        marked = _NOT_FILL.search(data, position) if position >= 0 else None
        if not parts.scans:
            parts.stray += (position if position >= 0 else len(data)) - start
            parts.fill += (marked.start() - 1 if marked else len(data)) - max(position, start)
            if parts.stray + parts.fill > most_idle:
                break
        if marked is None:
            break
        position, marker = marked.start() - 1, data[marked.start()]
        if marker == _EOI:
            parts.end = position
            break
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            parts.stray += 0 if parts.scans else 2
            position += 2
            continue
        end = position + 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
        parts.segments.append((marker, position, end))
        parts.header += not parts.scans
        position = end
        if marker == _SOS:
            next_marker = _END_OF_SCAN.search(data, end)
            position = next_marker.start() if next_marker else len(data)
            parts.scans.append((end, position))
    return parts


def decode(data: bytes, mode: str, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG, (H, W) of mode `L` or (H, W, C) of `RGB` or `CMYK`, stored orientation.

    `size` (width, height) is the file's own, or that of a reconstruction at an eighth, a quarter or
    half. None where the chroma is sampled in a way that TurboJPEG does not know.

    Raises PhotoError TRUNCATED where the data end too early, DECODE_FAILED where they are damaged;
    the detail says about which share of the picture is lost.
    """
    mended = data
    for _ in range(_MOST_MENDINGS):
        try:
            return _turbo(mended, mode, size)
        except ValueError as error:
            warning = str(error)
        if any(word in warning for word in _NOT_FOR_TURBO):
            return None
        better = _mend(mended, warning)
        if better is None:
            raise _damaged(data, warning)
        if better == mended:
            break
        mended = better
    # What is left to complain of is known to be harmless.
    return _turbo(mended, mode, size, strict=False)


def _turbo(
    data: bytes, mode: str, size: tuple[int, int], *, strict: bool = True
) -> NDArray[np.uint8]:
    pixels = simplejpeg.decode_jpeg(
        data, _COLOURS[mode], min_width=size[0], min_height=size[1], strict=strict
    )
    return pixels[..., 0] if mode == "L" else pixels


def _mend(data: bytes, warning: str) -> bytes | None:
    """The file without the cause of a harmless warning; None where the warning means damage."""
    if any(word in warning for word in _HARMLESS):
        return _with_plain_header(data)
    extraneous = _EXTRANEOUS.search(warning)
    if extraneous is None:
        return None
    count, marker = int(extraneous[1]), int(extraneous[2], 16)
    parts = structure(data)
    for start, end in parts.scans:
        # Padding, which some cameras write, is of equal bytes; other bytes were left over since
        # the decoder lost its place in them.
        if data[end + 1 : end + 2] == bytes([marker]) and end - count >= start:
            tail = data[end - count : end]
            return data[: end - count] + data[end:] if tail.strip(tail[:1]) == b"" else None
    plain = _with_plain_header(data)
    return plain if plain != data else None


def _with_plain_header(data: bytes) -> bytes:
    """The file without stray bytes and metadata, with odd but harmless header values corrected."""
    parts = structure(data)
    sequential = any(marker in _SEQUENTIAL for marker, _, _ in parts.segments)
    pieces = [data[:2]]
    scans = iter(parts.scans)
    for marker, start, end in parts.segments:
        segment = bytearray(data[start:end])
        if marker == _APP0 and segment[4:9] == b"JFIF\0" and len(segment) > 10:
            segment[9:11] = b"\1\1"
        elif marker == _APP14 and segment[4:9] == b"Adobe" and len(segment) >= 16:
            if segment[15] > 2:  # libjpeg takes an unknown transform for YCbCr or YCCK
                segment[15] = 2 if _components(data, parts) == 4 else 1
        elif _APP0 <= marker <= 0xEF or marker == 0xFE:
            continue
        elif marker == _SOS and sequential:
            segment[-3:] = b"\0\x3f\0"
        pieces.append(bytes(segment))
        if marker == _SOS:
            first, last = next(scans)
            pieces.append(data[first:last])
    return b"".join(pieces) + b"\xff\xd9"


def _components(data: bytes, parts: Structure) -> int:
    return next((data[start + 9] for marker, start, _ in parts.segments if marker in FRAMES), 0)


def _damaged(data: bytes, warning: str) -> PhotoError:
    reason = " ".join(warning.removeprefix("Corrupt JPEG data: ").split())
    if any(marker in _UNSUPPORTED for marker, _, _ in structure(data).segments):
        return PhotoError(RejectReason.DECODE_FAILED, f"the JPEG file does not decode: {reason}")
    whole = "data" if structure(data).progressive else "picture"
    lost = f"about {100 * lost_share(data):.0f} % of its {whole} is lost"
    if "Premature end of JPEG file" in warning:
        return PhotoError(RejectReason.TRUNCATED, f"the JPEG file ends too early: {lost}")
    return PhotoError(
        RejectReason.DECODE_FAILED, f"the JPEG file is damaged in the middle: {lost} ({reason})"
    )


def lost_share(data: bytes) -> float:
    """An estimate of the share of a damaged JPEG's picture that is wrong or missing, 0 to 1.

    A JPEG does not say where it is damaged. Each of the following gives a place from which on the
    picture counts as lost; the result is the largest share:

    - the blocks at the end that were never coded, which libjpeg leaves mid-grey;
    - a run of equal bytes, or a marker where none may be, in the entropy-coded data: the share of
      the data behind it;
    - of a progressive file, the first scan that does not decode: the share of the data from there;
    - of any other without such a run, the place where, along one row of blocks, the picture breaks
      off most from the row above it: a decoder that lost its place goes on shifted.
    """
    parts = structure(data)
    if not parts.scans:
        return 1.0
    shares = [_behind_odd_bytes(data, parts)]
    if parts.progressive or len(parts.scans) > 1:
        shares.append(_behind_first_bad_scan(data, parts))
    try:
        blocks = _turbo(_closed(data, parts), "L", (1, 1), strict=False).astype(np.int16)
    except ValueError:
        return max(max(shares), 0.01)
    shares.append(_never_coded(blocks))
    if max(shares[:-1]) == 0.0 and not parts.progressive:
        shares.append(_behind_break(blocks))
    return min(1.0, max(*shares, 0.01))


def _closed(data: bytes, parts: Structure) -> bytes:
    return data if parts.end is not None else data + b"\xff\xd9"


def _coded(parts: Structure) -> int:
    return max(1, sum(end - start for start, end in parts.scans))


def _behind_odd_bytes(data: bytes, parts: Structure) -> float:
    """The share of the entropy-coded data behind the first long run of equal bytes."""
    before = 0
    for start, end in parts.scans:
        scan = np.frombuffer(data, np.uint8, end - start, start)
        if len(scan) >= _RUN:
            changes = np.flatnonzero(np.diff(scan))
            edges = np.concatenate([[-1], changes, [len(scan) - 1]])
            long = np.flatnonzero(np.diff(edges) >= _RUN)
            if len(long):
                return 1.0 - (before + int(edges[long[0]]) + 1) / _coded(parts)
        before += end - start
    # What follows the last scan's end although the file goes on as if it had not ended.
    return 1.0 - _coded(parts) / max(_coded(parts), _rest(data, parts))


def _rest(data: bytes, parts: Structure) -> int:
    """Bytes from the first scan to the last end of an image, where a foreign marker ended it."""
    last = data.rfind(b"\xff\xd9")
    followed = data[parts.scans[-1][1] + 1 : parts.scans[-1][1] + 2]
    foreign = followed not in (b"\xd9", b"\xc4", b"\xda", b"\xdd", b"\xdb", b"")
    return last - parts.scans[0][0] if foreign else 0


def _behind_first_bad_scan(data: bytes, parts: Structure) -> float:
    """The share of the data from the first scan on, up to which the file does not decode."""

    def bad(scans: int) -> bool:
        try:
            _turbo(data[: parts.scans[scans - 1][1]] + b"\xff\xd9", "L", (1, 1))
        except ValueError:
            return True
        return False

    good, first_bad = 0, len(parts.scans) + 1
    while first_bad - good > 1:
        middle = (good + first_bad) // 2
        good, first_bad = (good, middle) if bad(middle) else (middle, first_bad)
    behind = parts.scans[first_bad - 1 :]
    return sum(end - start for start, end in behind) / _coded(parts)


def _never_coded(blocks: NDArray[np.int16]) -> float:
    """The share of (rows, columns) blocks at the end that are mid-grey, by the last row that is
    not."""
    other = np.flatnonzero((blocks != 128).any(axis=1))
    rows = len(blocks) - (int(other[-1]) + 1 if len(other) else 0)
    return rows / len(blocks)


def _behind_break(blocks: NDArray[np.int16]) -> float:
    """The share behind the sharpest break along one row of MCUs, in the order they are coded."""
    # Two blocks a side to an MCU, as almost all cameras sample chroma.
    rows, columns = (side // 2 for side in blocks.shape)
    if rows < 3 or columns < 1:
        return 0.5
    means = blocks[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean(axis=(1, 3))
    # Position n holds the step from the MCU above to the n-th one; a whole row of steps is summed.
    steps = np.abs(np.diff(means, axis=0)).ravel()
    sums = np.convolve(steps, np.ones(columns), "valid")
    place = int(np.argmax(sums)) + columns
    return 1.0 - place / (rows * columns)
