"""The merge stage through Beam, on tiles and shards written by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.mapping import test_tile_merge
from tests.mapping.test_tile_merge import IMAGES, ORIGIN, model_of, name_of, rows
from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry, commit_shard, reject_row
from vladmap.atlas.store import AtlasStore
from vladmap.pipeline import report_data
from vladmap.pipeline.manifest import record
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES
from vladmap.reporting.atlas_map import atlas_map
from vladmap.reporting.facts import facts_of
from vladmap.reporting.report import render
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL, Task
from vladmap.schemas.rejects import PhotoError, RejectReason

COLLECTION = "/photos"
SHARDS = ("g0000-00000-none-00000", "g0000-00000-none-00001")
ALONE, TWIN, REJECTED, UNREAD = "alone.jpg", "twin.jpg", "dark.jpg", "empty.jpg"


def image(name: str, collection: str, **given: Any) -> dict[str, Any]:
    street = {"latitude": None, "longitude": None, "altitude": None, "gps_accuracy_m": None}
    known = rows().get(name, street)
    return {
        **{field.name: None for field in tables.IMAGES},
        **{key: known[key] for key in street},
        "image_id": f"id-{name}", "name": name, "uri": f"{collection}/{name}", "content_hash": name,
        "width": 640, "height": 480, "sharpness": 1.0, "projection": "perspective",
        **given,
    }  # fmt: skip


def entry(root: Path, stage: str, shard: str, path: str, table: pa.Table, *bad: Any) -> None:
    counts = {"images": table.num_rows, "rejects": len(bad), "duplicates": 0}
    counts |= {"without_position": 0, "invalid_positions": 0, "pairs": 0, "verified": 0}
    commit_shard(str(root), stage, Task(shard, NO_CELL, path, "made"), table, bad, counts=counts)


def write_tile(root: Path, name: str, numbers: range, report: dict[str, Any]) -> None:
    files = []
    if numbers:
        folder = root / "scratch" / name
        folder.mkdir(parents=True)
        model_of(numbers).write_binary(folder)
        facts = {"georegistered": True, "origin": list(ORIGIN), "images": len(numbers), "points": 9}
        report["models"] = [{"model": 0, **facts, **report.pop("model", {})}]
        files = [
            storage.commit_file(
                str(root), f"tiles/{name}/sparse/0/{path.name}", path.read_bytes(), 1
            )
            for path in sorted(folder.iterdir())
        ]
    facts = {"tile": name, "images": 12, "origin": list(ORIGIN), **report}
    path = f"tiles/{name}/tile.json"
    main = storage.commit_file(str(root), path, json.dumps(facts).encode(), 1)
    counts = {"models": 1, "failed": 0, "milliseconds": 1500}
    task = Task(name, NO_CELL, path, "made")
    commit_entry(str(root), "reconstruct", task, [main, *files], counts=counts)


def made(
    root: Path,
    tiles: dict[str, tuple[range, dict[str, Any]]],
    collection: str = COLLECTION,
    hashes: Mapping[str, str] = MappingProxyType({}),
    uris: Mapping[str, str] = MappingProxyType({}),
) -> Run:
    """24 photographs of a street in two shards, and one of each that never came as far.

    `hashes` are of those that are there, in the folder `collection` or at their `uris`.
    """
    atlas = AtlasStore.open(str(root), create=True)
    atlas.manifest |= {"collection": collection}
    names = [name_of(number) for number in range(IMAGES)]
    halves = (names[:12], [*names[12:], ALONE, TWIN, REJECTED])
    unread = reject_row(f"{collection}/{UNREAD}", f"id-{UNREAD}", "ingest",
                        PhotoError(RejectReason.EMPTY_FILE, "the file has 0 bytes"))  # fmt: skip
    dark = reject_row(f"{collection}/{REJECTED}", f"id-{REJECTED}", "verify",
                      PhotoError(RejectReason.NO_FEATURES, "no local feature in it"))  # fmt: skip
    links = [(names[number], names[number + 1]) for number in range(IMAGES - 1)]
    for shard, half in zip(SHARDS, halves, strict=True):
        table = pa.Table.from_pylist(
            [
                image(
                    name,
                    collection,
                    duplicate_of=f"id-{names[0]}" if name == TWIN else None,
                    content_hash=hashes.get(name, ""),
                    uri=uris.get(name, f"{collection}/{name}"),
                )
                for name in half
            ],
            schema=tables.IMAGES,
        )
        last = shard == SHARDS[1]
        entry(root, "ingest", shard, f"images/cell=none/{shard}.parquet", table, *[unread][:last])
        ids = pa.table({"image_id": table["image_id"]})
        for stage, bad in (("describe-netvlad-lite", []), ("features-sift", [dark][:last])):
            entry(root, stage, shard, f"work/{stage}/{shard}.parquet", ids, *bad)
        mine = [pair for pair in links if pair[1] in half]
        entry(root, "pair", shard, f"pairs/{shard}.parquet", ends(mine, tables.PAIRS))
        entry(root, "verify", shard, f"two_views/{shard}.parquet", ends(mine, tables.TWO_VIEWS))
    for name, (numbers, report) in tiles.items():
        write_tile(root, name, numbers, report)
    atlas.manifest["stages"] = {"reconstruct": "made"}
    atlas.save()
    run = Run(atlas, BuildOptions(images=collection, atlas=str(root)))
    STAGES["merge"].work(run)
    record(run, "merge")
    return run


def ends(pairs: list[tuple[str, str]], schema: pa.Schema) -> pa.Table:
    matches = [[0, 0]] * 20
    given = [
        {"image_id_a": f"id-{a}", "image_id_b": f"id-{b}", "sources": [], "similarity": 0.5,
         "configuration": "CALIBRATED", "matches": matches, "inliers": matches}
        for a, b in pairs
    ]  # fmt: skip
    return pa.Table.from_pylist(given, schema=schema)


def unregistered(root: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in pq.read_table(root / "unregistered.parquet").to_pylist()}


def photographs(root: Path) -> set[str]:
    read = pq.read_table(root / "images")["image_id"].to_pylist()
    return {*read, f"id-{UNREAD}"}


def test_photographs_are_registered_or_unregistered_over_tiles_and_shards(tmp_path: Path) -> None:
    """Issue 19, 13: the two add up to all photographs, and the report says the same."""
    reason = "the mapper found no place for it among the others"
    few = "too little evidence: 9 points with parallax, 15 are needed"
    left = {f"id-{name_of(8)}": reason, f"id-{name_of(9)}": few}
    right = {f"id-{name_of(9)}": reason, f"id-{name_of(10)}": reason}
    run = made(
        tmp_path,
        {
            "left": (range(8), {"unregistered": left}),
            "right": (range(11, 24), {"unregistered": right}),
        },
    )
    missing_rows = unregistered(tmp_path)
    posed = set(pq.read_table(tmp_path / "poses.parquet")["image_id"].to_pylist())
    assert len(posed) == 21
    missing = {row["image_id"] for row in missing_rows.values()}
    assert posed | missing == photographs(tmp_path)
    assert not posed & missing
    assert {name: (row["stage"], row["reason"]) for name, row in missing_rows.items()} == {
        name_of(8): ("reconstruct", "left_out_by_mapper"),
        name_of(9): ("reconstruct", "too_few_points"),
        name_of(10): ("reconstruct", "left_out_by_mapper"),
        ALONE: ("pair", "no_pair"),
        TWIN: ("ingest", "duplicate"),
        REJECTED: ("verify", "rejected"),
        UNREAD: ("ingest", "rejected"),
    }
    ledger = run.atlas.ledger("merge")["model"]
    assert "unregistered.parquet" in [file.path for file in ledger.files]
    assert ledger.counts["registered"] + ledger.counts["unregistered"] == 28
    counts = json.loads((tmp_path / "atlas.json").read_text())["counts"]
    assert (counts["registered"], counts["unregistered"]) == (21, 7)
    summary = report_data.summary(run)
    assert re.search(r"not in the map +7 of 28 photographs", summary)
    data = report_data.gather(run)
    assert facts_of(data).photographs == 28
    assert [tile["seconds"] for tile in data.tiles] == [1.5, 1.5]
    page = render(data)
    for name in missing_rows:
        assert f"<bdi>{name}</bdi>" in page


def test_where_every_tile_fails_the_map_is_empty_and_says_why(tmp_path: Path) -> None:
    """Issue 19, 13: the stages after still run, and each photograph has its tile's failure."""
    failure = "mapping failed: still running after 3600 s"
    members = {f"id-{name_of(number)}": failure for number in range(IMAGES)}
    run = made(tmp_path, {"all": (range(0), {"failure": failure, "unregistered": members})})
    missing_rows = unregistered(tmp_path)
    assert len(missing_rows) == 28
    assert missing_rows[name_of(5)]["reason"] == "tile_failed"
    assert missing_rows[name_of(5)]["detail"] == f"all: {failure}"
    assert pq.read_table(tmp_path / "poses.parquet").num_rows == 0
    STAGES["report"].work(run)
    page = (tmp_path / "report" / "index.html").read_text()
    assert failure in page
    assert "28 of 28 photographs have no pose" in page
    assert re.search(r"  tile_failed +24\n", report_data.summary(run))


def test_without_any_tile_the_map_is_empty_too(tmp_path: Path) -> None:
    """Issue 19, 13: no verified pair anywhere is no reason to say nothing."""
    made(tmp_path, {})
    missing_rows = unregistered(tmp_path)
    assert len(missing_rows) == 28
    assert missing_rows[name_of(3)]["reason"] == "pairs_not_trusted"
    assert json.loads((tmp_path / "model" / "merge.json").read_text())["models"] == []


@pytest.mark.parametrize("lost", ["unregistered.parquet", "poses.parquet"])
def test_a_lost_table_is_written_again(tmp_path: Path, lost: str) -> None:
    tiles: dict[str, Any] = {"left": (range(8), {"unregistered": {}})}
    run = made(tmp_path, tiles)
    before = (tmp_path / lost).read_bytes()
    (tmp_path / lost).unlink()
    again = Run(AtlasStore.open(str(tmp_path), create=False), run.options)
    STAGES["merge"].work(again)
    assert (tmp_path / lost).read_bytes() == before


def test_a_map_without_any_gps_is_drawn_in_its_own_coordinates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 19, 13: the positions that such a drawing needs were never filled in."""
    monkeypatch.setitem(globals(), "rows", test_tile_merge.without_gps)
    tiles: dict[str, Any] = {
        "left": (range(8), {"unregistered": {}, "model": {"georegistered": False}})
    }
    run = made(tmp_path, tiles)
    data = report_data.gather(run)
    assert data.model_positions is not None
    assert data.model_positions.num_rows == 8
    drawn = atlas_map(data, facts_of(data))
    assert {layer.name: layer.drawn for layer in drawn.layers}["registered"] == 8
    missing_rows = {row["image_id"]: [row[axis] for axis in "xyz"]
             for row in data.model_positions.to_pylist()}  # fmt: skip
    centres = test_tile_merge.street()[0]
    # In the model's own frame, which here is the street's.
    np.testing.assert_allclose(missing_rows[f"id-{name_of(5)}"], centres[5], atol=1e-6)
