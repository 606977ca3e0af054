"""The report of an atlas: one page that holds all it needs and opens from disk."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bokeh.resources import Resources
from markupsafe import Markup

from vladmap.reporting import number_formats as formats
from vladmap.reporting.atlas_map import atlas_map
from vladmap.reporting.data import (
    IndexInfo,
    MergeDecision,
    ReportData,
    Retrieval,
    RouteExample,
    StageTiming,
    TileQuality,
)
from vladmap.reporting.facts import Facts, facts_of
from vladmap.reporting.files import atlas_files
from vladmap.reporting.missing import listed
from vladmap.reporting.pairs_section import PairsSection, pairs_section, worst_refused
from vladmap.reporting.truth_section import truth_section

MAX_ROWS = 200
"""Rows of a table on the page; the Parquet beside it has them all."""

_HERE = pathlib.Path(__file__).parent


def render(data: ReportData) -> str:
    """The page as text: one file that opens from disk.

    Script, style, data and pictures stand in it, and its content security policy lets it reach
    nothing else. The same data give the same text.
    """
    facts = facts_of(data)
    drawing = atlas_map(data, facts)
    # Code is inlined, so that the page needs no second file. It comes from this package and from
    # Bokeh, never from the collection.
    bokeh_js = Resources(mode="inline", components=["bokeh"]).js_raw[0]
    report_js = (_HERE / "static" / "report.js").read_text(encoding="utf-8")
    css = (_HERE / "static" / "report.css").read_text(encoding="utf-8")
    tiles, tiles_left = _tiles(data.tiles)
    merges = sorted(data.merges, key=lambda m: (m.get("merged", False), m.get("a"), m.get("b")))
    seconds = sum(stage.get("seconds", 0.0) for stage in data.stages)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    for name in ("count", "share", "metres", "degrees", "pixels", "decimals", "duration", "rate"):
        environment.filters[name] = getattr(formats, name)
    return environment.get_template("report.html.j2").render(
        title=data.title,
        created=data.created,
        policy=_policy(bokeh_js, report_js),
        css=Markup(css),
        cards=_cards(data, facts),
        map=drawing,
        map_json=Markup(
            _script_safe(json.dumps(drawing.item, separators=(",", ":"), allow_nan=False))
        ),
        stages=_stages(data.stages, seconds),
        seconds=seconds,
        models=facts.models[:MAX_ROWS],
        models_left=max(0, len(facts.models) - MAX_ROWS),
        # Without altitudes there are no 3-D residuals, and the column is left out.
        models_have_3d=any(math.isfinite(each.gps_residual_3d_median_m) for each in facts.models),
        tiles_have_3d=any(each["gps_residual_3d_median_m"] is not None for each in tiles),
        tiles=tiles,
        tiles_left=tiles_left,
        merges=[_filled(MergeDecision, merge) for merge in merges[:MAX_ROWS]],
        merges_left=max(0, len(merges) - MAX_ROWS),
        index={"text": _index_sentence(data.index)} if data.index else None,
        queries=_queries(data.retrievals, facts),
        route=_route(data.route, facts),
        judged=_judged(data, facts),
        pair_pictures={name: _data_uri(data.pictures[name]) for name in data.pictures},
        truth=truth_section(data.truth),
        remarks=data.remarks,
        missing=facts.missing,
        missing_total=facts.unregistered.num_rows,
        photographs=facts.photographs,
        listed=[
            {**row, "picture": _data_uri(row["picture"])}
            for row in listed(facts.unregistered, data.pictures)
        ],
        rejects=facts.rejects,
        files=atlas_files((data.index or {}).get("model", "netvlad-lite"), data.features),
        software=sorted(data.software.items()),
        bokeh_js=Markup(bokeh_js),
        report_js=Markup(report_js),
    )


def _policy(*scripts: str) -> str:
    """Content security policy: these scripts, pictures in the page, and no network at all.

    Should a hostile file name ever get past the escaping, its script would still not run.
    """
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()) for script in scripts)
    allowed = " ".join(f"'sha256-{digest.decode()}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _script_safe(text: str) -> str:
    """JSON in which no text can end the script element that it is in, or open a comment."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@dataclasses.dataclass(frozen=True)
class _Card:
    label: str
    figure: str
    aside: str


def _cards(data: ReportData, facts: Facts) -> list[_Card]:
    with_gps = int(facts.has_gps.sum())
    duplicates = int(facts.duplicate.sum())
    aside = f"{with_gps:,} with GPS"
    aside += f", {duplicates:,} duplicates" if duplicates else ""
    largest = facts.models[0].images if facts.models else 0
    reasons = ", ".join(group.reason for group in facts.rejects[:2])
    known = facts.gps_residual_horizontal_m[np.isfinite(facts.gps_residual_horizontal_m)]
    cards = [
        _Card("Images", formats.count(facts.images.num_rows), aside),
        _Card(
            "Registered",
            formats.share(facts.registered_share),
            f"{facts.registered_total:,} of {facts.distinct:,}",
        ),
        _Card("Models", formats.count(len(facts.models)), f"largest: {largest:,} images"),
        _Card(
            "Pairs verified",
            formats.count(facts.verified_pairs.num_rows),
            f"of {data.pairs.num_rows:,} candidates",
        ),
        _Card(
            "GPS residual, horizontal",
            formats.metres(facts.gps_residual_horizontal_median_m),
            f"median; 95 %: {formats.metres(np.percentile(known, 95))}"
            if known.size
            else "no registered image with GPS",
        ),
        _Card(
            "Not in the map",
            formats.count(facts.unregistered.num_rows),
            ", ".join(f"{each.count:,} {each.reason}" for each in facts.missing[:2]) or "none",
        ),
        _Card("Rejects", formats.count(facts.rejects_total), reasons or "none"),
    ]
    if data.index and data.index.get("recall") is not None:
        at = data.index.get("recall_at")
        cards.append(
            _Card(
                f"Index recall{f'@{at}' if at else ''}",
                formats.share(data.index["recall"]),
                "against exact search",
            )
        )
    truth = truth_section(data.truth)
    if truth and truth.recalls:
        first = truth.recalls[0]
        asked = f"against the truth, of {formats.count(truth.with_positive)} queries"
        cards.append(_Card(f"Recall@{first.rank}", formats.share(first.of_those), asked))
    return cards


def _filled(kind: Any, given: Any) -> dict[str, Any]:
    """A dict with every key of its TypedDict: what is missing is None, shown as not known."""
    return {key: given.get(key) for key in kind.__annotations__}


def _stages(stages: Sequence[StageTiming], total: float) -> list[dict[str, Any]]:
    rows = []
    for stage in stages:
        seconds = stage.get("seconds", 0.0)
        row = _filled(StageTiming, stage)
        row["unit"] = row["unit"] or ""
        row["device"] = row["device"] or ""
        row["share"] = seconds / total if total else None
        row["width"] = f"{100 * seconds / total if total else 0:.2f}"
        rows.append(row)
    return rows


def _tiles(tiles: Sequence[TileQuality]) -> tuple[list[dict[str, Any]], int]:
    rows = [_filled(TileQuality, tile) for tile in tiles]
    for row in rows:
        row["share"] = (row["registered"] or 0) / row["images"] if row["images"] else math.nan
    rows.sort(
        key=lambda r: (not r["failure"], -1.0 if math.isnan(r["share"]) else r["share"], r["name"])
    )
    return rows[:MAX_ROWS], max(0, len(rows) - MAX_ROWS)


def _index_sentence(index: IndexInfo) -> str:
    parts = [f"{index.get('count', 0):,} descriptors"]
    if index.get("dimension"):
        parts.append(f"of {index['dimension']:,} dimensions")
    if index.get("model"):
        parts.append(f"by {index['model']}")
    sentence = " ".join(parts) + f" in a FAISS index ({index.get('factory', 'factory not known')})"
    if index.get("recall") is None:
        return sentence + "."
    at = f"@{index['recall_at']}" if index.get("recall_at") else ""
    return f"{sentence}; recall{at} against exact search: {formats.share(index['recall'])}."


def _queries(retrievals: Sequence[Retrieval], facts: Facts) -> list[dict[str, Any]]:
    wanted = {r.image_id for r in retrievals} | {m.image_id for r in retrievals for m in r.matches}
    names = _names(wanted, facts.images)
    verified = _pairs_among(wanted, facts.verified_pairs)
    return [
        {
            "name": names.get(query.image_id, query.image_id),
            "thumbnail": _data_uri(query.thumbnail),
            "matches": [
                {
                    "name": names.get(match.image_id, match.image_id),
                    "thumbnail": _data_uri(match.thumbnail),
                    "similarity": match.similarity,
                    "gps_distance_m": match.gps_distance_m,
                    "verified": frozenset((query.image_id, match.image_id)) in verified,
                }
                for match in query.matches
            ],
        }
        for query in retrievals
    ]


def _judged(data: ReportData, facts: Facts) -> PairsSection | None:
    worst = worst_refused(data.judged)
    ids = {*worst["image_id_a"].to_pylist(), *worst["image_id_b"].to_pylist()}
    return pairs_section(data, _names(ids, facts.images))


def _route(example: RouteExample | None, facts: Facts) -> dict[str, Any] | None:
    if example is None:
        return None
    names = _names({step.image_id for step in example.steps}, facts.images)
    return {
        "length_m": example.length_m,
        "photographs": len(example.image_ids),
        "error_m": example.error_m,
        "steps": [
            {
                "words": step.words,
                "at_m": step.at_m,
                "name": names.get(step.image_id, step.image_id),
                "thumbnail": _data_uri(step.thumbnail),
            }
            for step in example.steps
        ],
    }


def _names(ids: set[str], images: pa.Table) -> dict[str, str]:
    chosen = images.filter(
        pc.is_in(images["image_id"], value_set=pa.array(sorted(ids), pa.string()))
    )
    return dict(zip(chosen["image_id"].to_pylist(), chosen["name"].to_pylist(), strict=True))


def _pairs_among(ids: set[str], pairs: pa.Table) -> set[frozenset[str]]:
    among = pa.array(sorted(ids), pa.string())
    of_both = [pc.is_in(pairs[name], value_set=among) for name in ("image_id_a", "image_id_b")]
    chosen = pairs.filter(pc.and_(*of_both))
    ends = zip(chosen["image_id_a"].to_pylist(), chosen["image_id_b"].to_pylist(), strict=True)
    return {frozenset(pair) for pair in ends}


def _data_uri(jpeg: bytes | None) -> str | None:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else None
