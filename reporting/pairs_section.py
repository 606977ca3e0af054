"""What is thought of pairs, for the page: refused ones by reason, loops, drift of the drives."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vladmap.reporting.data import ReportData
from vladmap.reporting.facts import floats

WORST = 8
"""So many refused pairs are shown with both pictures: those with most inliers."""

_BINS = 10
_MAX_DRIVES = 50
_KEPT = "kept"
_MEANS = {
    "far": "GPS and drives put the two too far apart",
    "alike": "more inliers than photographs so far apart can have",
    "turned": "turned against the pairs around it",
    "misfit": "its inliers lie off the poses that all pairs give its photographs",
    "depth": "at depths that other pairs of its photographs contradict",
    "contradicted": "a loop that odometry, or more loops of the same stretches, contradict",
}


@dataclasses.dataclass(frozen=True)
class PairsSection:
    """Figures of verified pairs that were judged.

    `refused` has (verdict, what it means, pairs, of them loops); `histogram` (from, to, pairs,
    width of the bar in per cent); `unknown` is the number of pairs without a probability. `worst`
    are rows of refused pairs, `drives` rows of drives.
    """

    total: int
    kept: int
    loops: int
    loops_kept: int
    refused: list[tuple[str, str, int, int]]
    histogram: list[tuple[float, float, int, str]]
    unknown: int
    worst: list[dict[str, Any]]
    drives: list[dict[str, Any]]
    drives_left: int
    metric: bool


def pairs_section(data: ReportData, names: dict[str, str]) -> PairsSection | None:
    """The section, or None where no pair was judged. `names` are of photographs, by image_id."""
    judged, loops = data.judged, data.loops
    if judged.num_rows == 0:
        return None
    counts, of_loops = _by_verdict(judged), _by_verdict(loops)
    refused = [
        (verdict, _MEANS.get(verdict, ""), count, of_loops.get(verdict, 0))
        for verdict, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if verdict != _KEPT
    ]
    probability = floats(judged, "probability")
    known = probability[np.isfinite(probability)]
    bins, edges = np.histogram(known, _BINS, (0.0, 1.0))
    most = max(1, int(bins.max()))
    histogram = [
        (float(low), float(high), int(number), f"{100 * number / most:.2f}")
        for low, high, number in zip(edges[:-1], edges[1:], bins, strict=True)
    ]
    drives = sorted(
        data.drives.to_pylist(), key=lambda row: (-(row["drift_m"] or 0.0), row["sequence_id"])
    )
    return PairsSection(
        total=judged.num_rows,
        kept=counts.get(_KEPT, 0),
        loops=loops.num_rows,
        loops_kept=of_loops.get(_KEPT, 0),
        refused=refused,
        histogram=histogram if len(known) else [],
        unknown=judged.num_rows - len(known),
        worst=[_shown(row, names) for row in worst_refused(judged).to_pylist()],
        drives=drives[:_MAX_DRIVES],
        drives_left=max(0, len(drives) - _MAX_DRIVES),
        metric=all(row["metric"] is not False for row in drives),
    )


def worst_refused(judged: pa.Table) -> pa.Table:
    """The refused rows of JUDGED_PAIRS with most inliers: those that nearly were believed."""
    refused = judged.filter(pc.not_equal(judged["verdict"], _KEPT))
    order = [("inliers", "descending"), ("image_id_a", "ascending"), ("image_id_b", "ascending")]
    return refused.sort_by(order).slice(0, WORST)


def _by_verdict(table: pa.Table) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(table["verdict"]).to_pylist()}


def _shown(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    ends = [row["image_id_a"], row["image_id_b"]]
    distance = row["distance_m"]
    return {
        "ids": ends,
        "names": [names.get(image_id, image_id) for image_id in ends],
        "means": _MEANS.get(row["verdict"], ""),
        "verdict": row["verdict"],
        "inliers": row["inliers"],
        "probability": row["probability"],
        "distance_m": math.nan if distance is None else distance,
    }
