"""`vladmap pair`: that stage alone."""

from __future__ import annotations

from vladmap.jobs.command import leave
from vladmap.jobs.stages import StageJob

_JOB = StageJob(
    "pair",
    ["pair"],
    "Find the image pairs that are worth matching: pairs/.",
    ["vladmap pair --atlas atlas --reach-m 40"],
)
command_line, main = _JOB.command_line, _JOB.main


if __name__ == "__main__":
    leave(main)
