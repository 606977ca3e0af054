"""`vladmap build`: photographs in, atlas out."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.command import leave
from jobs.stages import run_job
from pipeline.build import STAGES


def main(argv: Sequence[str] | None = None) -> int:
    """Run every stage; returns the exit code."""
    return run_job(
        "build",
        list(STAGES),
        "Turn a collection of geotagged street-level photographs into an atlas.",
        [
            "vladmap build --images photos --atlas atlas",
            "vladmap build --images photos --atlas atlas --dry-run",
            "vladmap build --images drives.csv --atlas atlas --config city.yaml",
            "vladmap build --images gs://bucket/photos --atlas gs://bucket/atlas \\",
            "    --runner DataflowRunner --region europe-west1 --temp_location gs://bucket/tmp",
        ],
        argv,
    )


if __name__ == "__main__":
    leave(main)
