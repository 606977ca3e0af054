"""Whether a run shows how far it has come: `--quiet`."""

from __future__ import annotations

_quiet = False


def set_quiet(quiet: bool) -> None:
    global _quiet
    _quiet = quiet


def hidden() -> bool | None:
    """The `disable` of a bar of tqdm's: always under `--quiet`, else where there is no terminal."""
    return True if _quiet else None
