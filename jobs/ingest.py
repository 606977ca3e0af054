"""`vladmap ingest`: that stage alone."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.command import leave
from jobs.stages import run_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    return run_job(
        "ingest",
        ["ingest"],
        "Read, check and place the photographs: images/ and rejects/.",
        ["vladmap ingest --atlas atlas --images photos"],
        argv,
    )


if __name__ == "__main__":
    leave(main)
