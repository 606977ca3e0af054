"""A count of the elements that this process has finished, for the progress bar.

It is used where the workers run in the driver's process; with other runners the bar counts the
ledger's entries instead.
"""

from __future__ import annotations

import threading

_lock = threading.Lock()
_done = 0


def reset() -> None:
    global _done
    with _lock:
        _done = 0


def advance(count: int = 1) -> None:
    global _done
    with _lock:
        _done += count


def done() -> int:
    return _done
