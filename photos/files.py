"""Reads files safely, even if a path is a pipe, a device or a file larger than memory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from vladmap.photos.decoding.bounds import MAX_PIXELS, size_limit
from vladmap.schemas.rejects import PhotoError, RejectReason

_NOT_REGULAR = "not a regular file"


def read_regular(path: str | Path, at_most: int | None = None) -> bytes:
    """All bytes of a local file.

    Raises OSError where it is missing, cannot be read or is no regular file; EFBIG where it has
    more than `at_most` bytes, of which none are read then.
    """
    with open(path, "rb", opener=open_regular) as file:
        if at_most is None:
            return file.read()
        if os.fstat(file.fileno()).st_size > at_most:
            raise too_large(str(path), at_most)
        return file.read()


def open_regular(path: str, flags: int) -> int:
    """A file descriptor of a regular file: a pipe may block its reader, a device may not end."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(number, _NOT_REGULAR, path)


def too_large(path: str, at_most: int) -> OSError:
    """The error of a file with more bytes than `at_most`."""
    return OSError(errno.EFBIG, f"the file has more than {at_most:,} bytes", path)


def photo_error(error: OSError) -> PhotoError:
    """Why a photograph's file could not be read."""
    text = error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        return PhotoError(RejectReason.MISSING, "is not there")
    if error.errno == errno.EFBIG:
        return PhotoError(
            RejectReason.TOO_LARGE,
            f"{text}, the most that a photograph may have; see --max-pixels",
        )
    if text == _NOT_REGULAR:
        return PhotoError(RejectReason.NOT_A_FILE, text)
    return PhotoError(RejectReason.UNREADABLE, text)


def read_photo(path: str | Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of a photograph on a local disk.

    Raises PhotoError MISSING, UNREADABLE, NOT_A_FILE, TOO_LARGE.
    """
    try:
        return read_regular(path, size_limit(max_pixels))
    except OSError as error:
        raise photo_error(error) from error
