"""Shards that cells of few photographs share: filled, stable under growth, counted by cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import apache_beam as beam
import h3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags

from tests.photos.bad_photos import encode, exif_block, gps_tags, texture
from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.store import AtlasStore
from vladmap.photos.cells import assign_cells
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stage import Step
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.stages.ingest import PLAN
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL, Task, shard_cell
from vladmap.transforms.coverage import MeasureCoverage

pytestmark = pytest.mark.medium

FULL = 10


def write(folder: Path, numbers: Iterable[int]) -> None:
    """Photographs 1.3 km apart: an H3 cell each."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        exif = exif_block(
            base={ExifTags.Base.Make: "Test"}, gps=gps_tags(48.0 + 0.012 * number, 16.0)
        )
        (folder / f"{number:03d}.jpg").write_bytes(encode(texture(number, 40, 30), exif=exif))


def ingest(photographs: Path, atlas: Path) -> Run:
    options = BuildOptions(images=str(photographs), atlas=str(atlas), shard_images=FULL)
    run = Run(AtlasStore.open(str(atlas), create=True), options)
    STAGES["ingest"].work(run)
    return run


def shards(atlas: Path) -> dict[str, pa.Table]:
    found = AtlasStore.open(str(atlas), create=False).image_shards()
    return {shard: pq.read_table(atlas / entry.file.path) for shard, entry in found.items()}


def cells_of(table: pa.Table) -> list[str]:
    return assign_cells(table["latitude"].to_numpy(), table["longitude"].to_numpy())


def test_cells_of_one_photograph_share_shards_up_to_the_bound(tmp_path: Path) -> None:
    write(tmp_path / "photographs", range(40))
    ingest(tmp_path / "photographs", tmp_path / "atlas")
    found = shards(tmp_path / "atlas")
    assert len(found) <= 20
    assert sum(table.num_rows for table in found.values()) == 40
    for shard, table in found.items():
        assert 1 <= table.num_rows <= FULL
        assert table["image_id"].to_pylist() == sorted(table["image_id"].to_pylist())
        level = h3.get_resolution(shard_cell(shard))
        assert {h3.cell_to_parent(cell, level) for cell in cells_of(table)} == {shard_cell(shard)}


def test_what_is_added_gets_shards_of_its_own_and_leaves_those_before(tmp_path: Path) -> None:
    photographs, atlas = tmp_path / "photographs", tmp_path / "atlas"
    write(photographs, range(30))
    run = ingest(photographs, atlas)
    before = {shard: entry.file for shard, entry in run.atlas.image_shards().items()}
    write(photographs, range(30, 55))
    run = ingest(photographs, atlas)
    after = {shard: entry.file for shard, entry in run.atlas.image_shards().items()}
    assert {shard: after[shard] for shard in before} == before
    assert {shard.partition("-")[0] for shard in set(after) - set(before)} == {"g0001"}


def test_a_generation_planned_before_cells_shared_shards_keeps_a_shard_a_cell(
    tmp_path: Path,
) -> None:
    photographs, atlas = tmp_path / "photographs", tmp_path / "atlas"
    write(photographs, range(30))
    run = ingest(photographs, atlas)
    known = run.ledger(PLAN)["g0000"]
    task = Task("g0000", NO_CELL, known.file.path, Step("plan").fingerprint())
    commit_entry(str(atlas), PLAN.name, task, known.files, content=known.content)
    ingest(photographs, atlas)
    old = shards(atlas)
    assert len(old) == 30
    assert all([shard_cell(shard)] == cells_of(table) for shard, table in old.items())
    write(photographs, range(30, 60))
    ingest(photographs, atlas)
    both = shards(atlas)
    assert {shard: both[shard] for shard in old} == old
    assert 0 < len(both) - len(old) <= 20


def test_coverage_counts_by_the_cell_of_each_photograph(tmp_path: Path) -> None:
    photographs, atlas = tmp_path / "photographs", tmp_path / "atlas"
    write(photographs, range(40))
    ingest(photographs, atlas)
    storage.commit_table(str(atlas), layout.POSES, tables.POSES.empty_table())
    found = shards(atlas)
    reads = (*(("images", layout.images(shard)) for shard in found), ("poses", layout.POSES))
    task = Task("all", NO_CELL, layout.COVERAGE, "f", reads=reads)
    with beam.Pipeline() as pipeline:
        pipeline | beam.Create([task]) | MeasureCoverage(str(atlas), "coverage")
    rows = pq.read_table(atlas / layout.COVERAGE).to_pylist()
    expected = Counter(cell for table in found.values() for cell in cells_of(table))
    assert {row["cell"]: row["images"] for row in rows} == expected
    assert {h3.get_resolution(cell) for cell in expected} == {8}
