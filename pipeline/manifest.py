"""The stages, counts and bounds in the manifest of an atlas, `atlas.json`."""

from __future__ import annotations

import pyarrow as pa

from vladmap.atlas import storage
from vladmap.photos.geoparquet import bounding_box
from vladmap.pipeline.ledgers import identity, image_shards
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.describe import DESCRIBE
from vladmap.pipeline.stages.ingest import INGEST
from vladmap.pipeline.stages.merge import MERGE
from vladmap.pipeline.stages.pair import PAIR
from vladmap.pipeline.stages.verify import FEATURES, VERIFY


def record(run: Run, name: str) -> None:
    """Enter a stage that ended in the manifest, with the identity of all that it committed."""
    manifest, now = run.atlas.manifest, identity(run, name)
    # Positions change with the stage that reads the photographs alone, and all are read for it.
    if "bounds" not in manifest or (name == _READS and manifest["stages"].get(name) != now):
        manifest["bounds"] = _bounds(run)
    manifest["stages"][name] = now
    manifest["counts"] = _counts(run)
    run.atlas.save()


_READS = "ingest"


def _counts(run: Run) -> dict[str, int]:
    shards = image_shards(run)
    counts = {"images": sum(entry.counts["images"] for entry in shards.values())}
    for name in (
        *("duplicates", "without_position", "invalid_positions", "invalid_facts", "panoramas"),
        *("zones_unknown", "zones_of_neighbours"),
    ):
        counts[name] = sum(entry.counts.get(name, 0) for entry in shards.values())
    counts["rejects"] = sum(
        entry.counts.get("rejects", 0)
        for step in (INGEST, DESCRIBE, FEATURES)
        for entry in run.ledger(step).values()
    )
    counts["pairs"] = sum(entry.file.rows for entry in run.ledger(PAIR).values())
    counts["verified_pairs"] = sum(
        entry.counts["verified"] for entry in run.ledger(VERIFY).values()
    )
    for entry in run.ledger(MERGE).values():
        counts |= {name: entry.counts.get(name, 0) for name in ("registered", "unregistered")}
    return counts


def _bounds(run: Run) -> list[float] | None:
    """The box around all positions (bounding_box), None where there is none; 16 bytes an image."""
    places = [
        storage.read_table(run.atlas.path(entry.file.path), ["latitude", "longitude"])
        for entry in image_shards(run).values()
    ]
    found = pa.concat_tables(places).drop_null() if places else None
    if found is None or not found.num_rows:
        return None
    return bounding_box(found["longitude"].to_numpy(), found["latitude"].to_numpy())
