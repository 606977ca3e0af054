"""Gathering the data of an atlas for the report and for the summary of a build."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vladmap.atlas import layout, storage
from vladmap.atlas.judged_views import judged_views
from vladmap.atlas.store import AtlasStore
from vladmap.mapping.georegister import centres_and_rotations
from vladmap.mapping.tile_model import read_model
from vladmap.pipeline import truth_record
from vladmap.pipeline.ledgers import image_shards, paths_of, read_json, reject_paths
from vladmap.pipeline.option_values import typed
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.remarks import remarks
from vladmap.pipeline.report_pictures import pictures_of, retrievals
from vladmap.pipeline.report_route import route_example
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.stages.merge import MERGE
from vladmap.pipeline.stages.pair import PAIR
from vladmap.pipeline.stages.reconstruct import LOOPS, RECONSTRUCT
from vladmap.pipeline.stages.report import SHOWN_OPTIONS
from vladmap.pipeline.stages.verify import VERIFY
from vladmap.reporting.data import (
    JUDGED_PAIRS,
    MODEL_POSITIONS,
    TWO_VIEW_SUMMARY,
    IndexInfo,
    ReportData,
    StageTiming,
    TileQuality,
)
from vladmap.reporting.missing import MAX_PICTURES, shown
from vladmap.reporting.pairs_section import worst_refused
from vladmap.reporting.summary import figures, terminal_summary
from vladmap.schemas import loop_tables, tables
from vladmap.schemas.records import LedgerEntry

# Tables differ in whether ids may be null.
_IDS = pa.schema([("image_id", pa.string())])


def options_shown(atlas: AtlasStore) -> BuildOptions:
    """The options that an atlas's report was made with; the defaults where it has none yet.

    Raises UserError for a bad value of an option: an atlas may come from someone else.
    """
    stored = atlas.manifest.get("report", {})
    place = atlas.path(layout.MANIFEST)
    known = {name: typed(place, name, stored[name]) for name in SHOWN_OPTIONS if name in stored}
    return BuildOptions(atlas=atlas.root, **known)


def summary(run: Run) -> str:
    """The text that is printed at the end of a build."""
    return terminal_summary(gather(run, pictures=False), run.atlas.path(layout.REPORT_PAGE))


def summary_figures(run: Run) -> dict[str, Any]:
    """The figures of the summary, for scripts."""
    return {
        **figures(gather(run, pictures=False)),
        "report": run.atlas.path(layout.REPORT_PAGE),
    }


def gather(run: Run, *, pictures: bool = True) -> ReportData:
    """Everything the report shows; memory grows with the number of images, not with pixels."""
    atlas = run.atlas
    images = _tables(run, (entry.file.path for entry in image_shards(run).values()), tables.IMAGES)
    created = images["captured_at"]
    newest = pc.max(created).as_py() if images.num_rows else None
    unregistered, poses = _unregistered(run), _poses(run)
    merged = read_json(run, layout.MERGE_REPORT)
    judged = _judged(run)
    missing = shown(unregistered, MAX_PICTURES).select(["image_id"])
    seen = pa.concat_tables([each.cast(_IDS) for each in (missing, *_ends(judged))])
    return ReportData(
        title=os.path.basename(str(atlas.manifest.get("collection", atlas.root))) or "atlas",
        created=f"photographs up to {newest:%Y-%m-%d}" if newest else "",
        images=images,
        rejects=_tables(run, reject_paths(run), tables.REJECTS),
        pairs=_tables(run, paths_of(run, PAIR), tables.PAIRS),
        two_views=_two_views(run),
        poses=poses,
        tiles=[
            _tile(run, entry, merged.get("tiles", {}))
            for _, entry in sorted(run.ledger(RECONSTRUCT).items())
        ],
        merges=list(merged.get("decisions", [])),
        remarks=remarks(run, merged),
        stages=_timings(run),
        index=_index(run),
        retrievals=retrievals(run, images) if pictures else (),
        truth=truth_record.stored(run),
        software=atlas.manifest.get("software", {}),
        features=run.options.features,
        model_positions=_model_positions(run, poses),
        unregistered=unregistered,
        route=route_example(run, images, poses) if pictures else None,
        pictures=pictures_of(run, images, seen) if pictures else {},
        judged=judged,
        loops=_tables(run, _loop_files(run, layout.LOOPS), loop_tables.LOOPS),
        drives=_tables(run, _loop_files(run, layout.DRIVES), loop_tables.DRIVES),
        in_several_tiles=_in_several_tiles(run),
    )


def _tables(run: Run, paths: Iterable[str], schema: pa.Schema) -> pa.Table:
    read = [storage.read_table(run.atlas.path(path)).cast(schema) for path in paths]
    return pa.concat_tables([schema.empty_table(), *read])


def _two_views(run: Run) -> pa.Table:
    """Each pair's configuration and its count of inliers, without the matches themselves."""
    parts = [TWO_VIEW_SUMMARY.empty_table()]
    for path in paths_of(run, VERIFY):
        table = storage.read_table(
            run.atlas.path(path), ["image_id_a", "image_id_b", "configuration", "inliers"]
        )
        inliers = pc.list_value_length(table["inliers"]).cast(pa.int32())
        columns = {name: table[name] for name in TWO_VIEW_SUMMARY.names}
        parts.append(pa.table({**columns, "inliers": inliers}).cast(TWO_VIEW_SUMMARY))
    return pa.concat_tables(parts)


def _judged(run: Run) -> pa.Table:
    """The judged pairs; none where an older version verified them and nobody judged them since."""
    parts = [JUDGED_PAIRS.empty_table()]
    paths = (run.atlas.path(path) for path in paths_of(run, VERIFY))
    for table in judged_views(paths, JUDGED_PAIRS.names):
        counts = pc.list_value_length(table["inliers"]).cast(pa.int32())
        counted = table.set_column(table.column_names.index("inliers"), "inliers", counts)
        parts.append(counted.filter(pc.is_valid(counted["verdict"])).cast(JUDGED_PAIRS))
    return pa.concat_tables(parts)


def _ends(judged: pa.Table) -> list[pa.Table]:
    """The photographs of the refused pairs that are shown."""
    worst = worst_refused(judged)
    return [worst.select([f"image_id_{end}"]).rename_columns(["image_id"]) for end in "ab"]


def _loop_files(run: Run, path: str) -> list[str]:
    return [
        file.path
        for entry in run.ledger(LOOPS).values()
        for file in entry.files
        if file.path == path
    ]


def _in_several_tiles(run: Run) -> list[str]:
    paths = (run.atlas.path(layout.tile_members(name)) for name in run.ledger(RECONSTRUCT))
    held = [storage.read_table(path, ["image_id"]) for path in paths if storage.exists(path)]
    if not held:
        return []
    counts = pc.value_counts(pa.concat_tables(held)["image_id"])
    return sorted(row["values"] for row in counts.to_pylist() if row["counts"] > 1)


def _poses(run: Run) -> pa.Table:
    path = run.atlas.path(layout.POSES)
    return storage.read_table(path) if storage.exists(path) else tables.POSES.empty_table()


def _unregistered(run: Run) -> pa.Table:
    path = run.atlas.path(layout.UNREGISTERED)
    known = storage.exists(path)
    return storage.read_table(path) if known else tables.UNREGISTERED.empty_table()


def _model_positions(run: Run, poses: pa.Table) -> pa.Table | None:
    """Projection centres in each model's own frame, if no model is georegistered."""
    if poses.num_rows == 0 or poses["latitude"].null_count < poses.num_rows:
        return None
    rows = {
        (pose["model"], pose["name"]): pose["image_id"]
        for pose in poses.select(["image_id", "name", "model"]).to_pylist()
    }
    positions = []
    for number in sorted(set(poses["model"].to_pylist())):
        with tempfile.TemporaryDirectory(prefix="vladmap-report-") as folder:
            for file in run.ledger(MERGE)["model"].files:
                if file.path.startswith(f"{layout.model_folder(number)}/"):
                    data = storage.read_whole(run.atlas.path(file.path), file.digest)
                    Path(folder, file.path.rpartition("/")[2]).write_bytes(data)
            model = read_model(Path(folder), str(number), (0.0, 0.0, 0.0), False).model
        names, centres, _ = centres_and_rotations(model)
        positions += [
            {"image_id": rows[number, name], "model": number, "x": x, "y": y, "z": z}
            for name, (x, y, z) in zip(names, centres.tolist(), strict=True)
            if (number, name) in rows
        ]
    return pa.Table.from_pylist(positions, schema=MODEL_POSITIONS)


def _tile(run: Run, entry: LedgerEntry, in_map: dict[str, Any]) -> TileQuality:
    """The figures of a tile; residuals are those of its largest model.

    `in_map` has figures of the photographs in the map, by the names of the tiles' models.
    """
    report = read_json(run, entry.file.path)
    milliseconds = entry.counts.get("milliseconds")
    models = report.get("models", [])
    largest = models[0] if models else {}
    name = report.get("tile", entry.shard)
    found = in_map.get(f"{name}/{largest.get('model', 0)}", {})
    return TileQuality(
        name=name,
        images=report.get("images", 0),
        registered=sum(model["images"] for model in models),
        models=len(models),
        points=sum(model["points"] for model in models),
        reprojection_error_px=largest.get("reprojection_error_px"),
        gps_residual_horizontal_median_m=largest.get("gps_residual_horizontal_median_m"),
        gps_residual_horizontal_max_m=largest.get("gps_residual_horizontal_max_m"),
        gps_residual_3d_median_m=largest.get("gps_residual_3d_median_m"),
        gps_residual_3d_max_m=largest.get("gps_residual_3d_max_m"),
        predicted_error_median_m=found.get("predicted_error_median_m"),
        doubtful=sum(found["doubtful"].values()) if "doubtful" in found else None,
        seconds=None if milliseconds is None else milliseconds / 1000,
        failure=report.get("failure"),
    )


def _timings(run: Run) -> list[StageTiming]:
    timings = run.timings()
    titles = (step.title for stage in STAGES.values() for step in stage.steps)
    names = dict.fromkeys(titles)
    return [
        StageTiming(
            stage=name,
            elements=timing["elements"],
            reused=timing["reused"],
            seconds=timing["seconds"],
            rate=timing["elements"] / timing["seconds"] if timing["seconds"] else None,
            device=timing["device"],
            unit=timing["unit"],
        )
        for name in names
        if (timing := timings.get(name))
    ]


def _index(run: Run) -> IndexInfo | None:
    facts = read_json(run, layout.index_facts(run.options.model))
    if not facts:
        return None
    return IndexInfo(
        model=facts["model"],
        factory=facts["factory"],
        count=facts["count"],
        dimension=facts["dimension"],
        recall=facts["recall"],
        recall_at=facts["recall_at"],
    )
