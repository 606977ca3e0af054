"""The stages of a build, in their order: each is a module of this package that declares `STAGE`.

A new stage is a module here and a line below, after the stages that it needs.
"""

from __future__ import annotations

from importlib import import_module

from vladmap.pipeline.stage import Stage

_MODULES = (
    "ingest",
    "describe",
    "index",
    "pair",
    "verify",
    "reconstruct",
    "merge",
    "coverage",
    "report",
)

STAGES: dict[str, Stage] = {
    name: import_module(f"vladmap.pipeline.stages.{name}").STAGE for name in _MODULES
}
"""The stages by name, in the order of a build."""
