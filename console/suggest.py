"""Suggestions for names and options that were mistyped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name most similar to `word`, None where none is similar. `-`, `_` and case do not count.

    Of equally similar names the first is returned, so the caller lists likely names first.
    """
    by_plain: dict[str, str] = {}
    for name in names:
        by_plain.setdefault(_plain(name), name)
    plain_word = _plain(word)
    # `difflib` misses shortened words, such as `--max-reject` for `--max-reject-rate`.
    longer = [plain for plain in by_plain if plain_word and plain.startswith(plain_word)]
    close = longer if len(longer) == 1 else difflib.get_close_matches(plain_word, by_plain, n=1)
    return by_plain[close[0]] if close else None


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """`; did you mean NAME?`, or nothing where no name is similar."""
    name = nearest(word, names)
    return f"; did you mean {name}?" if name else ""


def unknown(word: str, options: Iterable[str]) -> str:
    """The error message for a word of a command line that no option takes."""
    if not word.startswith("-"):
        return f"unexpected word {word!r}: no option before it takes it"
    flag = word.partition("=")[0]
    return f"unknown option {flag}{did_you_mean(flag, options)}"


def _plain(word: str) -> str:
    return word.strip("-").replace("_", "-").lower()
