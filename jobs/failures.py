"""What of an error the user can mend, in one line."""

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
    """The error, what it was raised from, and so on."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = current.__cause__ or current.__context__


def explained(error: BaseException) -> str | None:
    """What to say of an error that the user or the machine made, None where it is vladmap's own.

    Beam wraps what a worker raised, as an exception's cause or as text.
    """
    for cause in causes(error):
        if isinstance(cause, UserError):
            return _line(str(cause))
    texts = []
    for cause in causes(error):
        if (line := _of_the_machine(cause)) is not None:
            return _line(line)
        # Only through Beam's wrapping: behind an error of our own an older one may lie.
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
