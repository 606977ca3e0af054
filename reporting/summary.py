"""The summary that a build prints when it ends."""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vladmap.reporting import number_formats as formats
from vladmap.reporting.data import ReportData
from vladmap.reporting.facts import Facts, facts_of


def terminal_summary(data: ReportData, report: str | os.PathLike[str] | None = None) -> str:
    """Lines of plain text, without a line end at the end; `report` is where the page is."""
    facts = facts_of(data)
    lines = _figures(data, facts)
    if data.stages:
        lines += ["", *_stages(data)]
    if report is not None:
        lines += ["", f"Report: {_printable(os.fspath(report))}"]
    return "\n".join(lines)


def figures(data: ReportData) -> dict[str, Any]:
    """The figures of the summary for scripts; what is not known is None."""
    facts = facts_of(data)
    return {
        "images": facts.images.num_rows,
        "without_gps": int((~facts.has_gps).sum()),
        "duplicates": int(facts.duplicate.sum()),
        "rejected": {group.reason: group.count for group in facts.rejects},
        "pairs": data.pairs.num_rows,
        "pairs_verified": facts.verified_pairs.num_rows,
        "pairs_trusted": _kept(data.judged["verdict"]),
        "loops": data.loops.num_rows,
        "loops_kept": _kept(data.loops["verdict"]),
        "drift_m": {row["sequence_id"]: row["drift_m"] for row in data.drives.to_pylist()},
        "registered": facts.registered_total,
        "to_register": facts.distinct,
        "not_in_the_map": {each.reason: each.count for each in facts.missing},
        "models": [each.images for each in facts.models],
        "gps_residual_horizontal_median_m": _known(facts.gps_residual_horizontal_median_m),
        "gps_residual_3d_median_m": _known(facts.gps_residual_3d_median_m),
        "tiles": len(data.tiles),
        "tiles_failed": [tile["name"] for tile in data.tiles if tile.get("failure")],
        "notes": list(data.remarks),
    }


def _kept(verdicts: pa.ChunkedArray) -> int:
    return int(pc.sum(pc.equal(verdicts, "kept").cast(pa.int64())).as_py() or 0)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _figures(data: ReportData, facts: Facts) -> list[str]:
    images = formats.count(facts.images.num_rows)
    without = int((~facts.has_gps).sum())
    duplicates = int(facts.duplicate.sum())
    asides = [f"{without:,} without GPS"] * bool(without)
    asides += [f"{duplicates:,} exact duplicates"] * bool(duplicates)
    share = formats.share(facts.registered_share)
    registered = f"{facts.registered_total:,} of {facts.distinct:,} ({share})"
    models = ", ".join(f"{figure.images:,}" for figure in facts.models[:5])
    more = f" and {len(facts.models) - 5:,} smaller" if len(facts.models) > 5 else ""
    rows = [
        ("images", images + (f" ({', '.join(asides)})" if asides else "")),
        ("rejected", formats.count(facts.rejects_total)),
        *((f"  {group.reason}", formats.count(group.count)) for group in facts.rejects),
        (
            "pairs verified",
            f"{facts.verified_pairs.num_rows:,} of {data.pairs.num_rows:,} candidates",
        ),
        *_judged(data),
        ("registered", registered),
        *_missing(facts),
        ("models", f"{len(facts.models):,}" + (f" (images: {models}{more})" if models else "")),
        ("GPS residual", _gps_residual(facts)),
    ]
    failed = [tile["name"] for tile in data.tiles if tile.get("failure")]
    if failed:
        shown = ", ".join(failed[:3]) + (", ..." if len(failed) > 3 else "")
        rows.append(("tiles failed", f"{len(failed):,} of {len(data.tiles):,}: {shown}"))
        rows += [("because", text) for text in _failures(data)]
    rows += [("note", remark) for remark in data.remarks]
    width = max(len(name) for name, _ in rows)
    return [f"{_printable(name):<{width}}  {_printable(text)}" for name, text in rows]


def _judged(data: ReportData) -> list[tuple[str, str]]:
    """Pairs trusted, loops kept, the largest drift of a drive; nothing where none was judged."""
    if data.judged.num_rows == 0:
        return []
    trusted = f"{_kept(data.judged['verdict']):,} of {data.judged.num_rows:,} verified"
    rows = [("pairs trusted", trusted)]
    if data.loops.num_rows:
        rows.append(("loops kept", f"{_kept(data.loops['verdict']):,} of {data.loops.num_rows:,}"))
    known = [row for row in data.drives.to_pylist() if row["drift_m"] is not None]
    if known:
        most = max(known, key=lambda row: (row["drift_m"], row["sequence_id"]))
        of = f"{formats.metres(most['drift_m'])} of {formats.metres(most['length_m'])}"
        rows.append(("drift corrected", f"{of} at most, in {most['sequence_id']}"))
    return rows


def _failures(data: ReportData) -> list[str]:
    """The most frequent reasons of failed tiles, with the number of tiles that have each."""
    reasons = Counter(str(tile["failure"]) for tile in data.tiles if tile.get("failure"))
    most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:3]
    return [text + (f" ({count:,} tiles)" if count > 1 else "") for text, count in most]


def _missing(facts: Facts) -> list[tuple[str, str]]:
    """The number of photographs that are not in the map, by reason.

    Together with the registered ones they are all photographs.
    """
    if not facts.missing:
        return []
    total = f"{facts.unregistered.num_rows:,} of {facts.photographs:,} photographs"
    by_reason = [(f"  {each.reason}", formats.count(each.count)) for each in facts.missing]
    return [("not in the map", total), *by_reason]


def _gps_residual(facts: Facts) -> str:
    """Medians, in the plane and where altitudes are known in space, each by its name."""
    if not math.isfinite(facts.gps_residual_horizontal_median_m):
        return formats.UNKNOWN
    horizontal = f"{formats.metres(facts.gps_residual_horizontal_median_m)} horizontal"
    spatial = facts.gps_residual_3d_median_m
    shown = f"{horizontal}, {formats.metres(spatial)} 3-D" if math.isfinite(spatial) else horizontal
    return f"{shown} (median)"


def _stages(data: ReportData) -> list[str]:
    width = max(12, *(len(stage["stage"]) for stage in data.stages))
    lines = []
    for stage in data.stages:
        rate = stage.get("rate")
        parts = [
            f"{_printable(stage['stage']):<{width}}",
            f"{formats.duration(stage.get('seconds')):>12}",
            f"{formats.count(stage.get('elements')):>12}",
            f"{formats.rate(rate, stage.get('unit', '')) if rate is not None else '':>18}",
            stage.get("device", ""),
        ]
        lines.append("  ".join(parts).rstrip())
    total = sum(stage.get("seconds", 0.0) for stage in data.stages)
    return [*lines, f"{'in all':<{width}}  {formats.duration(total):>12}"]


def _printable(text: str) -> str:
    """The text with control characters escaped: a terminal would obey them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
