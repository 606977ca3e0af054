"""The lock of an atlas on local disk, by which only one run at a time works on it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from vladmap.atlas import layout
from vladmap.schemas.rejects import UserError


@contextlib.contextmanager
def exclusive(root: str) -> Iterator[None]:
    """Lock the atlas at `root` against other runs on this machine, until this process ends.

    Raises UserError if another run holds the lock, or if its path is not a regular file.
    """
    with _open(f"{root}/{layout.LOCK}") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another run is at work on {root}: wait for its end, or stop it"
            ) from error
        except OSError:
            pass  # some network filesystems have no locks
        yield


def _open(path: str) -> BinaryIO:
    """Open the lock file, without following a link and without truncating what is there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise UserError(f"{path} is not a regular file: remove it") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path} is not a regular file: remove it")
    return os.fdopen(descriptor, "r+b")
