"""pycolmap, its log reduced to errors, for every room that uses it."""

from __future__ import annotations

import contextlib
import ctypes
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def _signal_kept(number: int) -> Iterator[None]:
    """Restore the process's handler of a signal after the block; works in any thread.

    `struct sigaction` is copied as bytes; the buffer is larger than it is on any platform.
    """
    library, action = ctypes.CDLL(None), ctypes.create_string_buffer(1024)
    library.sigaction(number, None, action)
    try:
        yield
    finally:
        library.sigaction(number, action, None)


# As it is imported, pycolmap replaces Python's SIGTERM handler by one that prints a stack trace.
with _signal_kept(signal.SIGTERM):
    import pycolmap

# COLMAP logs each registered image on stderr; all that vladmap needs is in the results.
pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
pycolmap.logging.stderrthreshold = int(pycolmap.logging.Level.ERROR)

__all__ = ["pycolmap"]
