"""Errors that the user can mend, explained in one line."""

from __future__ import annotations

import builtins
import errno
import re
from collections.abc import Iterator

from vladmap.schemas.rejects import UserError

_HINTS = {
    errno.ENOSPC: "make room, then the same command goes on from here",
    errno.EDQUOT: "make room, then the same command goes on from here",
    errno.EROFS: "choose a folder that may be written",
    errno.EACCES: "see its permissions and those of the folders that it lies in",
    errno.EPERM: "see its permissions and those of the folders that it lies in",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
}
_MACHINE = tuple(
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, OSError | MemoryError)
)
# A worker in another process sends its exception as text.
_TOLD = re.compile(
    rf"^(?:[\w.]*\.)?(?P<kind>UserError|{'|'.join(_MACHINE)}): (?P<text>.*)$", re.MULTILINE
)
_STEP = re.compile(r" \[while running '[^']*'\]")


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and the chain of exceptions that it was raised from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = current.__cause__ or current.__context__


def explained(error: BaseException) -> str | None:
    """One line on an error made by the user or the machine; None for an error of vladmap itself.

    Beam wraps an exception that a worker raised: as the cause of another one, or as text in it.
    """
    for cause in causes(error):
        if isinstance(cause, UserError):
            return _line(str(cause))
    texts = []
    for cause in causes(error):
        if (line := _of_the_machine(cause)) is not None:
            return _line(line)
        # Only errors that Beam wraps are searched: one of our own may have been raised while
        # another was handled, which would explain nothing.
        if not (
            isinstance(cause, RuntimeError) or type(cause).__module__.startswith("apache_beam.")
        ):
            break
        texts.append(str(cause))
    messages = [match["text"] for text in texts for match in _TOLD.finditer(text)]
    return _line(messages[-1]) if messages else None


def _of_the_machine(error: BaseException) -> str | None:
    if isinstance(error, OSError):
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        hint = _HINTS.get(error.errno or 0)
        return f"{message}; {hint}" if hint else message
    if isinstance(error, MemoryError):
        return (
            "there is not enough memory"
            + (f" ({error})" if str(error) else "")
            + ": lower --batch-size, --threads or --shard-images, or use a larger machine"
        )
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a path holds a NUL character, which no file's name can"
    return None


def _line(text: str) -> str:
    return _STEP.sub("", " ".join(text.split()))
