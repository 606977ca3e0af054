"""`vladmap build`: photographs in, atlas out."""

from __future__ import annotations

from vladmap.jobs.command import leave
from vladmap.jobs.stages import StageJob
from vladmap.pipeline.stages import STAGES

_JOB = StageJob(
    "build",
    STAGES,
    "Turn a collection of geotagged street-level photographs into an atlas.",
    [
        "vladmap build --images photos --atlas atlas",
        "vladmap build --images photos --atlas atlas --dry-run",
        "vladmap build --images drives.csv --atlas atlas --config city.yaml",
        "vladmap build --images gs://bucket/photos --atlas gs://bucket/atlas \\",
        "    --runner DataflowRunner --region europe-west1 --temp_location gs://bucket/tmp",
    ],
)
command_line, main = _JOB.command_line, _JOB.main


if __name__ == "__main__":
    leave(main)
