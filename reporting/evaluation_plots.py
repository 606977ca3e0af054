"""Plots of an evaluation and of a comparison, each as SVG and PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]

# Okabe and Ito's, which people of any colour vision tell apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = ("o", "^", "s")
_SALT = "vladmap"


def plot_recall(folder: Path, series: Mapping[str, Mapping[int, float]]) -> None:
    """`recall.{svg,png}`: for each name the recall (0 to 1) at each rank."""
    figure, axes = _empty("best matches looked at", "recall, %")
    for number, (name, recall) in enumerate(series.items()):
        ranks = sorted(recall)
        axes.plot(
            ranks,
            [100 * recall[rank] for rank in ranks],
            marker="o",
            markersize=4,
            color=_COLOURS[number % len(_COLOURS)],
            linestyle="-" if number < len(_COLOURS) else "--",
            label=name,
        )
    axes.set_xscale("log")
    ticks = sorted({rank for recall in series.values() for rank in recall})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 102)
    axes.legend(loc="lower right", frameon=False)
    _save(figure, folder / "recall")


def plot_precision_recall(folder: Path, curves: Mapping[str, Curve]) -> None:
    """`precision_recall.{svg,png}`: for each name the recall and the precision, 0 to 1."""
    figure, axes = _empty("recall, %", "precision, %")
    for number, (name, (recall, precision)) in enumerate(curves.items()):
        axes.plot(100 * recall, 100 * precision, color=_COLOURS[number], label=name)
    axes.set_xlim(0, 102)
    axes.set_ylim(0, 102)
    axes.legend(loc="lower left", frameon=False)
    _save(figure, folder / "precision_recall")


def plot_comparison(folder: Path, points: Sequence[tuple[str, float, float]]) -> None:
    """`comparison.{svg,png}`: each name, bytes an image, and recall@1 (0 to 1)."""
    figure, axes = _empty("bytes an image", "recall@1, %", width=8.4)
    axes.set_xscale("log")
    for number, (name, size, recall) in enumerate(points):
        axes.plot(
            [size],
            [100 * recall],
            _MARKERS[number // len(_COLOURS) % len(_MARKERS)],
            color=_COLOURS[number % len(_COLOURS)],
            label=name,
        )
    axes.margins(x=0.1)
    axes.set_ylim(0, 102)
    if points:
        figure.legend(loc="outside right upper", frameon=False)
    _save(figure, folder / "comparison")


def _empty(x: str, y: str, width: float = 6.4) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, stem: Path) -> None:
    """Equal plots are equal files: no date, and ids that do not change from run to run."""
    with matplotlib.rc_context({"svg.hashsalt": _SALT}):
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(stem.with_suffix(".png"), dpi=150)
