"""`vladmap pair`: that stage alone."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.command import leave
from jobs.stages import run_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    return run_job(
        "pair",
        ["pair"],
        "Find the image pairs that are worth matching: pairs/.",
        ["vladmap pair --atlas atlas --reach-m 40"],
        argv,
    )


if __name__ == "__main__":
    leave(main)
