"""The last stage: gather what an atlas says of itself, and write it for people."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.photographs import load_photo
from vladmap.atlas.store import AtlasStore
from vladmap.console.progress import counted
from vladmap.geodesy.wgs84 import great_circle_m
from vladmap.mapping.georegister import centres_and_rotations
from vladmap.mapping.judging import KEPT, VERDICTS, verdict_counts
from vladmap.mapping.merge import read_model
from vladmap.photos.geometry import bounding_box
from vladmap.pipeline import truth
from vladmap.pipeline.options import BuildOptions, typed
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import (
    describe_name,
    features_name,
    image_shards,
    index_name,
    reject_paths,
)
from vladmap.reporting.data import (
    MODEL_POSITIONS,
    TWO_VIEW_SUMMARY,
    IndexInfo,
    Match,
    ReportData,
    Retrieval,
    StageTiming,
    TileQuality,
)
from vladmap.reporting.missing import MAX_PICTURES, shown
from vladmap.reporting.report import render
from vladmap.reporting.summary import figures, terminal_summary
from vladmap.retrieval.index import search
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL, LedgerEntry, Task
from vladmap.schemas.rejects import DamagedFile
from vladmap.transforms import ingest as ingest_stage
from vladmap.transforms import pair as pair_stage
from vladmap.transforms import verify as verify_stage
from vladmap.transforms.describe import descriptor_matrix
from vladmap.transforms.index import load_index
from vladmap.transforms.reconstruct import JUDGED_PATH

log = logging.getLogger("vladmap")

_QUERIES = 10
_MATCHES = 5
_THUMBNAIL_PX = 200
_STAGE_ORDER = (
    "ingest",
    "vocabulary",
    "describe",
    "train index",
    "index",
    "index places",
    "merge index",
    "pair",
    "features",
    "cameras",
    "verify",
    "reconstruct",
    "merge",
)
_CHOICES = ("model", "features", "max_pixels")


def report(run: Run) -> None:
    """Write `report/index.html`, unless nothing has changed since it was written."""
    stages = run.atlas.manifest["stages"]
    inputs = [f"{name} {stages[name]}" for name in sorted(stages) if name != "report"]
    inputs.append(truth.stored_identity(run))
    inputs += _of_collection(run)
    # What the page shows depends on these options; `check-map` makes it anew with the same ones.
    choices = {name: getattr(run.options, name) for name in _CHOICES}
    run.atlas.manifest["report"] = choices
    inputs.append(json.dumps(choices, sort_keys=True))
    timings = json.dumps(run.timings(), sort_keys=True)
    task = Task("index", NO_CELL, "report/index.html", storage.combined_digest([*inputs, timings]))
    if not run.todo("report", [task]):
        log.info("report: nothing to do")
        return
    page = render(gather(run)).encode()
    file = storage.commit_file(run.atlas.root, task.output, page, 1)
    commit_entry(run.atlas.root, "report", task, [file])
    log.info("report: %s", run.atlas.path(task.output))


def options_shown(atlas: AtlasStore) -> BuildOptions:
    """The options that an atlas's report was made with; the defaults where it has none yet.

    Raises UserError for what is no value of an option: the atlas may be anybody's.
    """
    said = atlas.manifest.get("report", {})
    fields = {option.name: option for option in dataclasses.fields(BuildOptions)}
    place = atlas.path("atlas.json")
    known = {name: typed(place, fields[name], said[name]) for name in _CHOICES if name in said}
    return BuildOptions(atlas=atlas.root, **known)


def summary(run: Run) -> str:
    """What is printed at the end of a build."""
    return terminal_summary(gather(run, pictures=False), run.atlas.path("report/index.html"))


def summary_figures(run: Run) -> dict[str, Any]:
    """The same for scripts."""
    return {
        **figures(gather(run, pictures=False)),
        "report": run.atlas.path("report/index.html"),
    }


def gather(run: Run, *, pictures: bool = True) -> ReportData:
    """Everything the report shows; memory grows with the number of images, not with pixels."""
    atlas = run.atlas
    images = _tables(run, (entry.file.path for entry in image_shards(run).values()), tables.IMAGES)
    created = images["captured_at"]
    newest = pc.max(created).as_py() if images.num_rows else None
    unregistered, poses = _unregistered(run), _poses(run)
    merged = _json(run, "model/merge.json")
    return ReportData(
        title=os.path.basename(str(atlas.manifest.get("collection", atlas.root))) or "atlas",
        created=f"photographs up to {newest:%Y-%m-%d}" if newest else "",
        images=images,
        rejects=_tables(run, reject_paths(run), tables.REJECTS),
        pairs=_tables(run, _files(run, pair_stage.STAGE), tables.PAIRS),
        two_views=_two_views(run),
        poses=poses,
        tiles=[_tile(run, entry) for _, entry in sorted(run.atlas.ledger("reconstruct").items())],
        merges=list(merged.get("decisions", [])),
        remarks=_remarks(run, merged),
        stages=_timings(run),
        index=_index(run),
        retrievals=_retrievals(run, images) if pictures else (),
        truth=truth.stored(run),
        software=atlas.manifest.get("software", {}),
        features=run.options.features,
        model_positions=_model_positions(run, poses),
        unregistered=unregistered,
        pictures=_pictures(run, images, shown(unregistered, MAX_PICTURES)) if pictures else {},
    )


def _files(run: Run, stage: str) -> list[str]:
    return [entry.file.path for _, entry in sorted(run.atlas.ledger(stage).items())]


def _tables(run: Run, paths: Iterable[str], schema: pa.Schema) -> pa.Table:
    found = [storage.read_table(run.atlas.path(path)).cast(schema) for path in paths]
    return pa.concat_tables([schema.empty_table(), *found])


def _two_views(run: Run) -> pa.Table:
    """Each pair's configuration and its count of inliers, without the matches themselves."""
    parts = [TWO_VIEW_SUMMARY.empty_table()]
    for path in _files(run, verify_stage.STAGE):
        table = storage.read_table(
            run.atlas.path(path), ["image_id_a", "image_id_b", "configuration", "inliers"]
        )
        inliers = pc.list_value_length(table["inliers"]).cast(pa.int32())
        columns = {name: table[name] for name in TWO_VIEW_SUMMARY.names}
        parts.append(pa.table({**columns, "inliers": inliers}).cast(TWO_VIEW_SUMMARY))
    return pa.concat_tables(parts)


def _poses(run: Run) -> pa.Table:
    path = run.atlas.path("poses.parquet")
    return storage.read_table(path) if storage.exists(path) else tables.POSES.empty_table()


def _unregistered(run: Run) -> pa.Table:
    path = run.atlas.path("unregistered.parquet")
    known = storage.exists(path)
    return storage.read_table(path) if known else tables.UNREGISTERED.empty_table()


def _pictures(run: Run, images: pa.Table, rows: pa.Table) -> dict[str, bytes]:
    """A small JPEG of each photograph of `rows` that can be read."""
    wanted = rows["image_id"].combine_chunks()
    chosen = images.filter(pc.is_in(images["image_id"], value_set=wanted))
    found = {row["image_id"]: _thumbnail(run, row) for row in chosen.to_pylist()}
    return {image_id: picture for image_id, picture in found.items() if picture is not None}


def _model_positions(run: Run, poses: pa.Table) -> pa.Table | None:
    """Where each model has its images, for a map without any place on Earth."""
    if poses.num_rows == 0 or poses["latitude"].null_count < poses.num_rows:
        return None
    rows = {
        (pose["model"], pose["name"]): pose["image_id"]
        for pose in poses.select(["image_id", "name", "model"]).to_pylist()
    }
    found = []
    for number in sorted(set(poses["model"].to_pylist())):
        with tempfile.TemporaryDirectory(prefix="vladmap-report-") as folder:
            for file in run.atlas.ledger("merge")["model"].files:
                if file.path.startswith(f"model/{number}/"):
                    data = storage.read_whole(run.atlas.path(file.path), file.digest)
                    Path(folder, file.path.rpartition("/")[2]).write_bytes(data)
            model = read_model(Path(folder), str(number), (0.0, 0.0, 0.0), False).model
        names, centres, _ = centres_and_rotations(model)
        found += [
            {"image_id": rows[number, name], "model": number, "x": x, "y": y, "z": z}
            for name, (x, y, z) in zip(names, centres.tolist(), strict=True)
            if (number, name) in rows
        ]
    return pa.Table.from_pylist(found, schema=MODEL_POSITIONS)


def _json(run: Run, path: str) -> dict[str, Any]:
    """A JSON file that a stage committed; empty where there is none yet."""
    at = run.atlas.path(path)
    try:
        found: dict[str, Any] = json.loads(storage.read_whole(at, run.atlas.digests().get(path)))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DamagedFile(at, str(error)) from error
    return found


def _tile(run: Run, entry: LedgerEntry) -> TileQuality:
    """A tile's figures; residuals are those of its largest model."""
    said = _json(run, entry.file.path)
    milliseconds = entry.counts.get("milliseconds")
    models = said.get("models", [])
    largest = models[0] if models else {}
    return TileQuality(
        name=said.get("tile", entry.shard),
        images=said.get("images", 0),
        registered=sum(model["images"] for model in models),
        models=len(models),
        points=sum(model["points"] for model in models),
        reprojection_error_px=largest.get("reprojection_error_px"),
        gps_residual_horizontal_median_m=largest.get("gps_residual_horizontal_median_m"),
        gps_residual_horizontal_max_m=largest.get("gps_residual_horizontal_max_m"),
        gps_residual_3d_median_m=largest.get("gps_residual_3d_median_m"),
        gps_residual_3d_max_m=largest.get("gps_residual_3d_max_m"),
        seconds=None if milliseconds is None else milliseconds / 1000,
        failure=said.get("failure"),
    )


_SAID_OF_PAIRS = {
    "far": "too far apart by GPS and drives",
    "alike": "more alike than photographs so far apart can be",
    "turned": "turned against all that see both",
}


def _remarks(run: Run, merged: dict[str, Any]) -> list[str]:
    return [
        *_of_collection(run),
        *_of_pairs(run),
        *_of_models(merged.get("models_left_out", []), "model/merge.json"),
        *(
            sentence
            for path in _files(run, "reconstruct")
            for sentence in _of_tile(_json(run, path), path)
        ),
        *_of_colours(merged.get("colours", {})),
    ]


def _of_collection(run: Run) -> list[str]:
    """What the listing passed over or guessed."""
    notes = run.atlas.manifest.get("collection_notes")
    return (
        [f"{note}." for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
    )


def _of_pairs(run: Run) -> list[str]:
    """How many verified pairs were not mapped from, and why."""
    path = run.atlas.path(JUDGED_PATH)
    if not storage.exists(path):
        return []
    counts = verdict_counts(storage.read_table(path, ["verdict"]))
    total = sum(counts.values())
    dropped = {name: count for name, count in counts.items() if name != VERDICTS[KEPT] and count}
    if not dropped:
        return []
    reasons = ", ".join(f"{count:,} {_SAID_OF_PAIRS[name]}" for name, count in dropped.items())
    return [
        f"{sum(dropped.values()):,} of {total:,} verified pairs are not trusted and "
        f"took no part in the map: {reasons}; {JUDGED_PATH} names them."
    ]


def _of_tile(said: dict[str, Any], path: str) -> list[str]:
    late = [f"{path}: no time was left, {missed}." for missed in said.get("out_of_time", [])]
    return late + _of_models(said.get("models_left_out", []), path)


def _of_models(left_out: list[dict[str, Any]], path: str) -> list[str]:
    return [
        f"A model of {left['images']:,} images is left out ({left['reason']}); {path} names them."
        for left in left_out
    ]


def _of_colours(colours: dict[str, Any]) -> list[str]:
    unreadable, black = colours.get("unreadable", {}), colours.get("points_without", 0)
    if not unreadable:
        return []
    first = next(f"{name} ({why})" for name, why in sorted(unreadable.items()))
    return [
        f"{counted(len(unreadable), 'photographs')} could not be read again to colour the points "
        f"that they show, the first is {first}; {counted(black, 'points')} stayed black."
    ]


def _timings(run: Run) -> list[StageTiming]:
    timings = run.timings()
    return [
        StageTiming(
            stage=name,
            elements=said["elements"],
            reused=said["reused"],
            seconds=said["seconds"],
            rate=said["elements"] / said["seconds"] if said["seconds"] else None,
            device=said["device"],
            unit=said["unit"],
        )
        for name in _STAGE_ORDER
        if (said := timings.get(name))
    ]


def _index(run: Run) -> IndexInfo | None:
    about = _json(run, f"index/{run.options.model}/index.json")
    if not about:
        return None
    return IndexInfo(
        model=about["model"],
        factory=about["factory"],
        count=about["count"],
        dimension=about["dimension"],
        recall=about["recall"],
        recall_at=about["recall_at"],
    )


def _retrievals(run: Run, images: pa.Table) -> list[Retrieval]:
    """Ten images spread over the collection, each with its five best matches elsewhere."""
    if "global" not in run.atlas.ledger(index_name(run)):
        return []
    merged = run.atlas.ledger(index_name(run))["global"].file
    index, ids = load_index(run.atlas.root, run.options.model, merged.digest)
    chosen = {ids[row] for row in np.linspace(0, len(ids) - 1, min(_QUERIES, len(ids))).astype(int)}
    vectors: dict[str, NDArray[np.float32]] = {}
    for path in _files(run, describe_name(run)):
        table = storage.read_table(run.atlas.path(path))
        table = table.filter(pc.is_in(table["image_id"], pa.array(sorted(chosen), pa.string())))
        vectors |= dict(zip(table["image_id"].to_pylist(), descriptor_matrix(table), strict=True))
    queries = sorted(vectors)
    if not queries:
        return []
    similarity, rows = search(index, np.stack([vectors[image] for image in queries]), _MATCHES + 1)
    shown = {ids[row] for row in rows.ravel() if row >= 0} | set(queries)
    facts = {
        row["image_id"]: row
        for row in images.filter(
            pc.is_in(images["image_id"], pa.array(sorted(shown), pa.string()))
        ).to_pylist()
    }
    retrievals = []
    for image, scores, found in zip(queries, similarity, rows, strict=True):
        matches = [
            Match(
                ids[row],
                float(score),
                _distance(facts[image], facts[ids[row]]),
                _thumbnail(run, facts[ids[row]]),
            )
            for score, row in zip(scores, found, strict=True)
            if row >= 0 and ids[row] != image
        ]
        retrievals.append(Retrieval(image, _thumbnail(run, facts[image]), matches[:_MATCHES]))
    return retrievals


def _distance(a: dict[str, Any], b: dict[str, Any]) -> float | None:
    if a["latitude"] is None or b["latitude"] is None:
        return None
    return float(great_circle_m(a["latitude"], a["longitude"], b["latitude"], b["longitude"]))


def _thumbnail(run: Run, row: dict[str, Any]) -> bytes | None:
    photo = load_photo(row, run.options.max_pixels, _small)
    if photo.pixels is None:
        return None
    stream = io.BytesIO()
    Image.fromarray(photo.pixels).save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _small(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, _THUMBNAIL_PX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def manifest_facts(run: Run) -> dict[str, Any]:
    """Counts and bounds for atlas.json."""
    shards = image_shards(run)
    counts = {"images": sum(entry.counts["images"] for entry in shards.values())}
    for name in (
        *("duplicates", "without_position", "invalid_positions", "invalid_facts", "panoramas"),
        *("zones_unknown", "zones_of_neighbours"),
    ):
        counts[name] = sum(entry.counts.get(name, 0) for entry in shards.values())
    for stage in (ingest_stage.STAGE, describe_name(run), features_name(run)):
        ledger = run.atlas.ledger(stage).values()
        counts["rejects"] = counts.get("rejects", 0) + sum(
            entry.counts.get("rejects", 0) for entry in ledger
        )
    counts["pairs"] = sum(entry.file.rows for entry in run.atlas.ledger(pair_stage.STAGE).values())
    counts["verified_pairs"] = sum(
        entry.counts["verified"] for entry in run.atlas.ledger(verify_stage.STAGE).values()
    )
    for entry in run.atlas.ledger("merge").values():
        counts |= {name: entry.counts.get(name, 0) for name in ("registered", "unregistered")}
    places = [
        storage.read_table(run.atlas.path(entry.file.path), ["latitude", "longitude"])
        for entry in shards.values()
    ]
    found = pa.concat_tables(places).drop_null() if places else None
    bounds = None
    if found is not None and found.num_rows:
        bounds = bounding_box(found["longitude"].to_numpy(), found["latitude"].to_numpy())
    return {"counts": counts, "bounds": bounds}
