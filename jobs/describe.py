"""`vladmap describe`: that stage alone."""

from __future__ import annotations

from vladmap.jobs.command import leave
from vladmap.jobs.stages import StageJob

_JOB = StageJob(
    "describe",
    ["describe"],
    "Compute one global descriptor for each image: descriptors/.",
    ["vladmap describe --atlas atlas --model vlad"],
)
command_line, main = _JOB.command_line, _JOB.main


if __name__ == "__main__":
    leave(main)
