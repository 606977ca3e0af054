"""Whether a run shows its progress: the option `--quiet`."""

from __future__ import annotations

_quiet = False


def set_quiet(quiet: bool) -> None:
    global _quiet
    _quiet = quiet


def hidden() -> bool | None:
    """The argument `disable` of a tqdm bar: True with `--quiet`, else None: by the terminal."""
    return True if _quiet else None
