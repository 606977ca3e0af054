"""`vladmap index`: that stage alone."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.command import leave
from jobs.stages import run_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    return run_job(
        "index",
        ["index"],
        "Build the global FAISS index of the descriptors: index/.",
        ["vladmap index --atlas atlas --factory IVF1024,Flat"],
        argv,
    )


if __name__ == "__main__":
    leave(main)
