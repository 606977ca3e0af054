"""`vladmap merge`: that stage alone."""

from __future__ import annotations

from vladmap.jobs.command import leave
from vladmap.jobs.stages import StageJob

_JOB = StageJob(
    "merge",
    ["merge"],
    "Join the tiles' models: model/, poses.parquet.",
    ["vladmap merge --atlas atlas"],
)
command_line, main = _JOB.command_line, _JOB.main


if __name__ == "__main__":
    leave(main)
