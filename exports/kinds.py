"""The kinds of export, the values of `--to`. This module imports nothing that is slow."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vladmap.exports.base import Exporter


@dataclass(frozen=True)
class ExportKind:
    """One value of `--to`.

    `title` is its line in the help. `options` are the options of `vladmap export` that it takes
    besides `--atlas`, `--output` and, where it is `of_map`, `--model`; any other is refused. The
    module `vladmap.exports.<name>` has its `EXPORTER`.
    """

    name: str
    title: str
    options: tuple[str, ...] = ()
    of_map: bool = True

    def load(self) -> Exporter:
        """The exporter; its module is imported by this call."""
        exporter: Exporter = importlib.import_module(f"vladmap.exports.{self.name}").EXPORTER
        return exporter


EXPORTS = (
    ExportKind(
        "colmap",
        "a model and photographs that fit it pixel for pixel, for COLMAP and what reads it",
        ("images", "link", "copy", "text", "max_pixels"),
    ),
    ExportKind(
        "g2o", "the pose graph of a model: poses and trusted pairs, for g2o, GTSAM and the like"
    ),
    ExportKind(
        "hloc",
        "colmap's, with features, matches and descriptors in the files of hloc",
        ("images", "link", "copy", "text", "max_pixels", "queries"),
    ),
    ExportKind(
        "kapture",
        "a model with photographs, features and matches in the folders of kapture 1.1",
        ("images", "link", "copy", "max_pixels"),
    ),
    ExportKind("geojson", "where each photograph was taken and which way it looks, for web maps"),
    ExportKind(
        "onnx",
        "the index, and the network that describes photographs for it, to search without vladmap",
        ("descriptors",),
        of_map=False,
    ),
)
"""All kinds in the order of the help; the first is the default."""


def export_kind(name: str) -> ExportKind:
    """The kind of this name; KeyError where there is none."""
    return {kind.name: kind for kind in EXPORTS}[name]
