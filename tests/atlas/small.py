"""A small atlas for tests of its readers, made without a build: three shards in two cells.

Its images are n0 to n6: n0 and n1 in the shard g0000-000-881e15b713fffff-000, n2 to n4 in
...-001 of the same cell, n5 and n6 (without GPS) in the cell `none`. n6 is an exact duplicate of
n5. Its descriptors are along the axes, so that cosines can be told by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vladmap.atlas import layout, storage
from vladmap.atlas.commit import commit_entry, commit_shard, reject_row
from vladmap.atlas.store import AtlasStore
from vladmap.features.base import LocalFeatures
from vladmap.photos.geoparquet import points_wkb
from vladmap.photos.ids import image_id
from vladmap.retrieval import faiss_index
from vladmap.retrieval.descriptors import descriptor_table
from vladmap.schemas import tables
from vladmap.schemas.records import NO_CELL, Task, shard_cell
from vladmap.schemas.rejects import PhotoError, RejectReason

CELL = "881e15b713fffff"
SHARDS = {
    f"g0000-000-{CELL}-000": ("n0", "n1"),
    f"g0000-000-{CELL}-001": ("n2", "n3", "n4"),
    f"g0000-000-{NO_CELL}-000": ("n5", "n6"),
}
NAMES = [name for names in SHARDS.values() for name in names]
DUPLICATE = "n6"
MODELS = {"netvlad-lite": 8, "gem": 4}
"""Names with the numbers in a descriptor."""


def id_of(name: str) -> str:
    return image_id(f"{name}.jpg")


def vector(name: str, dimension: int) -> np.ndarray:
    """0.8 along the axis of the image's number, 0.6 along the next: neighbours have cosine 0.48."""
    made = np.zeros(dimension, np.float32)
    number = int(name[1:])
    made[number % dimension], made[(number + 1) % dimension] = 0.8, 0.6
    return made


def write_atlas(root: Path, photographs: Path, *, maps: bool = True) -> None:
    """Write the atlas. `photographs` is where its images lie, as the atlas says."""
    store = AtlasStore.open(str(root), create=True)
    for shard, names in SHARDS.items():
        _write_images(store.root, shard, names, photographs)
        for model, dimension in MODELS.items():
            _write_descriptors(store.root, shard, names, model, dimension)
        _write_features(store.root, shard, names)
        _write_pairs(store.root, shard, names)
    error = PhotoError(RejectReason.MISSING, "was there when listed, is gone now")
    row = reject_row(f"{photographs}/lost.jpg", id_of("lost"), "ingest", error)
    _commit(store.root, "ingest", "rejects-000", layout.rejects("ingest", "000"), [row], REJECTS)
    for model, dimension in MODELS.items():
        _write_index(store.root, model, dimension)
    if maps:
        _write_map(store.root, photographs)
    store.manifest |= {
        "collection": str(photographs),
        "report": {"model": "netvlad-lite", "features": "sift"},
        "counts": {"images": 7, "pairs": 3, "verified_pairs": 3, "registered": 2 if maps else 0},
    }
    store.save()


REJECTS = tables.REJECTS


def _commit(
    root: str,
    stage: str,
    shard: str,
    path: str,
    rows: Sequence[Mapping[str, Any]],
    schema: pa.Schema,
) -> None:
    filled = [{name: row.get(name) for name in schema.names} for row in rows]
    table = pa.Table.from_pylist(filled, schema=schema)
    cell = shard_cell(shard) if shard.startswith("g") else NO_CELL
    commit_shard(root, stage, Task(shard, cell, path, "print"), table)


def _place(name: str) -> dict[str, Any]:
    located = name not in ("n5", "n6")
    latitude, longitude = (48.2 + int(name[1:]) / 1000, 16.37) if located else (np.nan, np.nan)
    point = points_wkb(np.array([latitude]), np.array([longitude]), np.array([170.0]))[0].as_py()
    if not located:
        return {"geometry": None, "bbox": None}
    box = {"xmin": longitude, "ymin": latitude, "xmax": longitude, "ymax": latitude}
    return {"latitude": latitude, "longitude": longitude, "altitude": 170.0,
            "geometry": point, "bbox": box}  # fmt: skip


def _write_images(root: str, shard: str, names: Sequence[str], photographs: Path) -> None:
    rows = [
        {
            "image_id": id_of(name),
            "name": f"{name}.jpg",
            "uri": f"{photographs}/{name}.jpg",
            "content_hash": _content_hash(photographs / f"{name}.jpg"),
            "width": 40,
            "height": 30,
            "projection": "perspective",
            "duplicate_of": id_of("n5") if name == DUPLICATE else None,
            "sharpness": 1.0,
            **_place(name),
        }
        for name in names
    ]
    _commit(root, "ingest", shard, layout.images(shard), rows, tables.IMAGES)


def _content_hash(path: Path) -> str:
    return storage.digest(path.read_bytes()) if path.exists() else "0" * 32


def _own(names: Sequence[str]) -> list[str]:
    return [name for name in names if name != DUPLICATE]


def _write_descriptors(
    root: str, shard: str, names: Sequence[str], model: str, dimension: int
) -> None:
    schema = tables.descriptors(dimension, model, f"print of {model}")
    own = _own(names)
    table = descriptor_table(
        [id_of(name) for name in own], [vector(name, dimension) for name in own], schema
    )
    path = layout.descriptors(model, shard)
    commit_shard(root, layout.describe_ledger(model), Task(shard, "", path, "print"), table)


def features_of(name: str) -> LocalFeatures:
    number = int(name[1:])
    keypoints = np.full((number + 1, 4), number, np.float32)
    return LocalFeatures(keypoints, np.full((number + 1, 128), number, np.uint8))


def _write_features(root: str, shard: str, names: Sequence[str]) -> None:
    own = sorted(_own(names), key=id_of)
    schema = tables.features("sift", 128, pa.uint8())
    rows = [
        {
            "image_id": id_of(name), "width": 40, "height": 30,
            "keypoints": features_of(name).keypoints.tolist(),
            "descriptors": features_of(name).descriptors.tolist(),
        }
        for name in own
    ]  # fmt: skip
    path = layout.features("sift", shard)
    _commit(root, layout.features_ledger("sift"), shard, path, rows, schema)


def _write_pairs(root: str, shard: str, names: Sequence[str]) -> None:
    a, b = sorted(map(id_of, names[:2]))
    pair = {"image_id_a": a, "image_id_b": b}
    near = {**pair, "sources": ["near"], "similarity": 0.48, "rank": 0}
    _commit(root, "pair", shard, layout.pairs(shard), [near], tables.PAIRS)
    view = {
        **pair, "configuration": "CALIBRATED", "matches": [[0, 0], [0, 1]], "inliers": [[0, 1]],
        "essential": [0, 1, 2, 3, 4, 5, 6, 7, 8],
    }  # fmt: skip
    _commit(root, "verify", shard, layout.two_views(shard), [view], tables.TWO_VIEWS)


def _write_index(root: str, model: str, dimension: int) -> None:
    names = [name for shard in sorted(SHARDS) for name in sorted(_own(SHARDS[shard]), key=id_of)]
    vectors = np.stack([vector(name, dimension) for name in names])
    files = []
    for path in (layout.global_index(model), layout.places_index(model)):
        index = faiss_index.train_index("Flat", dimension, vectors)
        index.add(vectors)
        data = faiss_index.to_bytes(index)
        files.append(storage.commit_file(root, path, data, len(names)))
    ids = {"id": list(range(len(names))), "image_id": [id_of(name) for name in names]}
    table = pa.table(ids, schema=tables.INDEX_IDS)
    files.append(storage.commit_table(root, layout.index_ids(model), table))
    facts = {"factory": "Flat", "count": len(names), "dimension": dimension, "model": model}
    data = json.dumps(facts).encode()
    files.append(storage.commit_file(root, layout.index_facts(model), data, 1))
    task = Task("global", NO_CELL, files[0].path, "print")
    commit_entry(root, layout.index_ledger(model), task, files)


def _write_map(root: str, photographs: Path) -> None:
    """Two models, of one image each; their COLMAP files are none that COLMAP could read."""
    facts = [
        {"images": 1, "points": 5, "georegistered": True, "origin": [48.2, 16.37, 170.0]},
        {"images": 1, "points": 3, "georegistered": False, "origin": [0.0, 0.0, 0.0]},
    ]
    report = json.dumps({"models": facts, "decisions": []}).encode()
    files = [storage.commit_file(root, layout.MERGE_REPORT, report, 1)]
    for number in range(len(facts)):
        path = f"{layout.model_folder(number)}/images.bin"
        files.append(storage.commit_file(root, path, b"no model", 1))
    posed = [
        {"image_id": id_of(name), "name": f"{name}.jpg", "uri": f"{photographs}/{name}.jpg",
         "model": model, "qw": 1.0, "qx": 0.0, "qy": 0.0, "qz": 0.0, "points": 5,
         "reprojection_error_px": 0.5, **_place(name)}
        for model, name in enumerate(("n0", "n2"))
    ]  # fmt: skip
    missing = [
        {"image_id": id_of(name), "name": f"{name}.jpg", "uri": f"{photographs}/{name}.jpg",
         "stage": "reconstruct", "reason": "too_few_matches", "detail": "", **_place(name)}
        for name in NAMES
        if name not in ("n0", "n2")
    ]  # fmt: skip
    for path, rows, schema in (
        (layout.POSES, posed, tables.POSES),
        (layout.UNREGISTERED, missing, tables.UNREGISTERED),
    ):
        filled = [{name: row.get(name) for name in schema.names} for row in rows]
        table = pa.Table.from_pylist(filled, schema=schema)
        files.append(storage.commit_table(root, path, table))
    commit_entry(root, "merge", Task("model", NO_CELL, files[0].path, "print"), files)
