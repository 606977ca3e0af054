"""The stages, counts and bounds in the manifest of an atlas, `atlas.json`."""

from __future__ import annotations

from typing import Any

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
    """Enter a finished stage in the manifest, with the identity of everything that it committed."""
    run.atlas.manifest["stages"][name] = identity(run, name)
    run.atlas.manifest |= _facts(run)
    run.atlas.save()


def _facts(run: Run) -> dict[str, Any]:
    """Counts, and the bounds of the positions."""
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
    places = [
        storage.read_table(run.atlas.path(entry.file.path), ["latitude", "longitude"])
        for entry in shards.values()
    ]
    known = pa.concat_tables(places).drop_null() if places else None
    bounds = None
    if known is not None and known.num_rows:
        bounds = bounding_box(known["longitude"].to_numpy(), known["latitude"].to_numpy())
    return {"counts": counts, "bounds": bounds}
