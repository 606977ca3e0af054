"""`vladmap reconstruct`: that stage alone."""

from __future__ import annotations

from vladmap.jobs.command import leave
from vladmap.jobs.stages import StageJob

_JOB = StageJob(
    "reconstruct",
    ["reconstruct"],
    "Map every tile with COLMAP and place it by GPS: tiles/.",
    ["vladmap reconstruct --atlas atlas --tile-images 300"],
)
command_line, main = _JOB.command_line, _JOB.main


if __name__ == "__main__":
    leave(main)
