"""Types of numbers for `argparse`: a value out of range is refused before the run begins."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

MOST_SEED = 2**31 - 1
"""The largest seed: FAISS and COLMAP store it as a signed 32-bit integer."""


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included; with `above`, `low` is excluded."""

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
    """The `type` of an `argparse` option that takes an integer from `low` to `high`."""

    def number(text: str) -> int:
        return _within(int(text), text, Range(low, high))

    number.__name__ = "whole number"
    return number


def real(low: float, high: float = math.inf, above: bool = False) -> Callable[[str], float]:
    """The `type` of an `argparse` option that takes a finite number in a range."""

    def number(text: str) -> float:
        return _within(float(text), text, Range(low, high, above))

    number.__name__ = "number"
    return number


def not_negative(default: int | float) -> Callable[[str], int | float]:
    """The `type` of an option that takes numbers of the default's type, not below 0; integers are
    at most MOST_SEED."""
    return whole(0, MOST_SEED) if isinstance(default, int) else real(0)


Number = TypeVar("Number", int, float)


def _within(value: Number, text: str, allowed: Range) -> Number:
    if value not in allowed:
        raise argparse.ArgumentTypeError(f"must be {allowed}, not {text}")
    return value


def human_bytes(count: float) -> str:
    """A number of bytes with a decimal unit, such as `1.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
