"""`vladmap verify`: that stage alone."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.command import leave
from jobs.stages import run_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    return run_job(
        "verify",
        ["verify"],
        "Local features, matches and two-view geometry: features/, two_views/.",
        ["vladmap verify --atlas atlas --features xfeat"],
        argv,
    )


if __name__ == "__main__":
    leave(main)
