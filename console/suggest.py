"""The name that somebody meant: for words that nothing knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like a word, None where none is like it. `-`, `_` and case are alike.

    Of equally good names the first is taken: what is nearer to the reader goes first.
    """
    names: dict[str, str] = {}
    for name in known:
        names.setdefault(_plain(name), name)
    wanted = _plain(word)
    # A word cut short is what `difflib` sees least: `--max-reject` is `--max-reject-rate`.
    begun = [plain for plain in names if wanted and plain.startswith(wanted)]
    close = begun if len(begun) == 1 else difflib.get_close_matches(wanted, names, n=1)
    return names[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?`, or nothing."""
    name = nearest(word, known)
    return f"; did you mean {name}?" if name else ""


def unknown(word: str, options: Iterable[str]) -> str:
    """What to say of a word that no option has taken."""
    if not word.startswith("-"):
        return f"unexpected word {word!r}: no option before it takes it"
    flag = word.partition("=")[0]
    return f"unknown option {flag}{did_you_mean(flag, options)}"


def _plain(word: str) -> str:
    return word.strip("-").replace("_", "-").lower()
