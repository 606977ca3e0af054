"""Numbers on a command line: what is out of range is said before anything begins."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

MOST_SEED = 2**31 - 1
"""FAISS and COLMAP keep a seed in 32 bits with a sign."""


@dataclass(frozen=True)
class Range:
    """From `low` to `high`; `above` where `low` itself is too little."""

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.low < value if self.above else self.low <= value)
            and value <= self.high
        )

    def __str__(self) -> str:
        least = f"more than {self.low:g}" if self.above else f"at least {self.low:g}"
        return least if math.isinf(self.high) else f"{least} and at most {self.high:.10g}"


def whole(low: int, high: float = math.inf) -> Callable[[str], int]:
    """A whole number in a range, as `argparse` wants its types."""

    def number(text: str) -> int:
        return _within(int(text), text, Range(low, high))

    number.__name__ = "whole number"
    return number


def real(low: float, high: float = math.inf, above: bool = False) -> Callable[[str], float]:
    """A finite number in a range, as `argparse` wants its types."""

    def number(text: str) -> float:
        return _within(float(text), text, Range(low, high, above))

    number.__name__ = "number"
    return number


def not_negative(default: int | float) -> Callable[[str], int | float]:
    """A number of the default's kind, not below 0 and small enough for a seed where it is whole."""
    return whole(0, MOST_SEED) if isinstance(default, int) else real(0)


Number = TypeVar("Number", int, float)


def _within(value: Number, text: str, allowed: Range) -> Number:
    if value not in allowed:
        raise argparse.ArgumentTypeError(f"must be {allowed}, not {text}")
    return value


def human_bytes(count: float) -> str:
    """A number of bytes as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
