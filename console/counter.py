"""How far the work in this process has come, for the bar on the terminal.

Only a run whose workers live in the driver's process moves it between shards; on other runners
the bar counts the ledger's lines instead. Nothing but the bar reads it.
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
