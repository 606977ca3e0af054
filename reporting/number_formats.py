"""How figures are written for people, on the page and in the terminal alike."""

from __future__ import annotations

import math

UNKNOWN = "—"
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\uff1d")


def count(value: float | None) -> str:
    """1234567 -> 1,234,567."""
    return UNKNOWN if _unknown(value) else f"{value:,.0f}"


def share(value: float | None) -> str:
    """0.975 -> 97.5 %; only a whole is called 100 %, and only nothing 0 %."""
    if value is None or _unknown(value):
        return UNKNOWN
    if value in (0, 1):
        return f"{value:.0%}".replace("%", " %")
    return f"{min(max(100 * value, 0.1), 99.9):.1f} %"


def metres(value: float | None) -> str:
    """1.234 -> 1.23 m; 1234.5 -> 1.23 km."""
    if value is None or _unknown(value):
        return UNKNOWN
    return f"{value:.2f} m" if abs(value) < 999.995 else f"{value / 1000:,.2f} km"


def pixels(value: float | None) -> str:
    """0.7312 -> 0.73 px."""
    return UNKNOWN if _unknown(value) else f"{value:.2f} px"


def degrees(value: float | None) -> str:
    """0.7312 -> 0.73°."""
    return UNKNOWN if _unknown(value) else f"{value:.2f}°"


def decimals(value: float | None) -> str:
    """0.71234 -> 0.712."""
    return UNKNOWN if _unknown(value) else f"{value:.3f}"


def duration(seconds: float | None) -> str:
    """0.25 -> 0.25 s; 75 -> 1 min 15 s; 3661 -> 1 h 01 min."""
    if seconds is None or _unknown(seconds):
        return UNKNOWN
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def rate(value: float | None, unit: str = "") -> str:
    """12.345 -> 12.3 /s; with a unit, 12.3 images/s."""
    if value is None or _unknown(value):
        return UNKNOWN
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{digits}f} {unit}/s"


def _unknown(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def cell(text: str) -> str:
    """A text for a CSV file, which no spreadsheet takes for a formula.

    What begins as one gets an apostrophe before it (OWASP, "CSV Injection"); other programs read
    the text with it.
    """
    return f"'{text}" if text.lstrip(" \n").startswith(_FORMULAS) else text
