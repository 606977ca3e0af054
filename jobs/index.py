"""`vladmap index`: that stage alone."""

from __future__ import annotations

from vladmap.jobs.command import leave
from vladmap.jobs.stages import StageJob

_JOB = StageJob(
    "index",
    ["index"],
    "Build the global FAISS index of the descriptors: index/.",
    ["vladmap index --atlas atlas --factory IVF1024,Flat"],
)
command_line, main = _JOB.command_line, _JOB.main


if __name__ == "__main__":
    leave(main)
