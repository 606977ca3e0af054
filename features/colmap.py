"""pycolmap with its log turned down, for every room that uses it."""

from __future__ import annotations

import contextlib
import ctypes
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def _signal_kept(number: int) -> Iterator[None]:
    """Put back what the C library did on a signal before the block, in whatever thread.

    `struct sigaction` is copied unread: nowhere is it as large as the buffer.
    """
    library, action = ctypes.CDLL(None), ctypes.create_string_buffer(1024)
    library.sigaction(number, None, action)
    try:
        yield
    finally:
        library.sigaction(number, action, None)


# pycolmap's own handler answers a plain request to end with a stack trace, and hides Python's.
with _signal_kept(signal.SIGTERM):
    import pycolmap

# COLMAP narrates each registered image on stderr; what matters is in the results.
pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
pycolmap.logging.stderrthreshold = int(pycolmap.logging.Level.ERROR)

__all__ = ["pycolmap"]
