"""`vladmap ingest`: that stage alone."""

from __future__ import annotations

from vladmap.jobs.command import leave
from vladmap.jobs.stages import StageJob

_JOB = StageJob(
    "ingest",
    ["ingest"],
    "Read, check and place the photographs: images/ and rejects/.",
    ["vladmap ingest --atlas atlas --images photos"],
)
command_line, main = _JOB.command_line, _JOB.main


if __name__ == "__main__":
    leave(main)
