"""`vladmap report`: that stage alone."""

from __future__ import annotations

from vladmap.jobs.command import leave
from vladmap.jobs.stages import StageJob

_JOB = StageJob(
    "report",
    ["report"],
    "Write the report: report/index.html.",
    ["vladmap report --atlas atlas"],
)
command_line, main = _JOB.command_line, _JOB.main


if __name__ == "__main__":
    leave(main)
