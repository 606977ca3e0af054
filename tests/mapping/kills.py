"""A tile's mapping whose process is killed, as where the machine's memory runs out."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from vladmap.mapping.tile_mapping import map_tile


def map_or_die(work: Path, rows: list[dict[str, Any]], *given: Any) -> dict[str, Any]:
    """map_tile; the file $KILLS says how often the process of a tile of seven is killed first."""
    kills = Path(os.environ["KILLS"])
    if len(rows) == 7 and int(kills.read_text()):
        kills.write_text(str(int(kills.read_text()) - 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return map_tile(work, rows, *given)
