"""`vladmap verify`: that stage alone."""

from __future__ import annotations

from vladmap.jobs.command import leave
from vladmap.jobs.stages import StageJob

_JOB = StageJob(
    "verify",
    ["verify"],
    "Local features, matches and two-view geometry: features/, two_views/.",
    ["vladmap verify --atlas atlas --features xfeat"],
)
command_line, main = _JOB.command_line, _JOB.main


if __name__ == "__main__":
    leave(main)
