"""The pictures in the report: matches of retrieval, and photographs that are not in the map."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from vladmap.atlas import storage
from vladmap.atlas.photographs import load_photo
from vladmap.geodesy.wgs84 import great_circle_m
from vladmap.pipeline.ledgers import paths_of
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.describe import DESCRIBE
from vladmap.pipeline.stages.index import INDEX
from vladmap.reporting.data import Match, Retrieval
from vladmap.retrieval.descriptors import descriptor_matrix
from vladmap.retrieval.faiss_index import search
from vladmap.transforms.index import load_index

_QUERIES = 10
_MATCHES = 5
_THUMBNAIL_PX = 200


def pictures_of(run: Run, images: pa.Table, rows: pa.Table) -> dict[str, bytes]:
    """A small JPEG of each photograph of `rows` that can be read."""
    wanted = rows["image_id"].combine_chunks()
    chosen = images.filter(pc.is_in(images["image_id"], value_set=wanted))
    pictures = {row["image_id"]: _thumbnail(run, row) for row in chosen.to_pylist()}
    return {image_id: picture for image_id, picture in pictures.items() if picture is not None}


def retrievals(run: Run, images: pa.Table) -> list[Retrieval]:
    """Ten images spread over the collection, each with its five best matches elsewhere."""
    merged = run.ledger(INDEX).get("global")
    if merged is None:
        return []
    index, ids = load_index(run.atlas.root, run.options.model, merged.file.digest)
    spread = np.linspace(0, len(ids) - 1, min(_QUERIES, len(ids))).astype(int)
    chosen = set(ids.take(pa.array(spread)).to_pylist())
    vectors: dict[str, NDArray[np.float32]] = {}
    for path in paths_of(run, DESCRIBE):
        table = storage.read_table(run.atlas.path(path))
        table = table.filter(pc.is_in(table["image_id"], pa.array(sorted(chosen), pa.string())))
        vectors |= dict(zip(table["image_id"].to_pylist(), descriptor_matrix(table), strict=True))
    queries = sorted(vectors)
    if not queries:
        return []
    similarity, rows = search(index, np.stack([vectors[image] for image in queries]), _MATCHES + 1)
    there = np.unique(rows[rows >= 0])
    found_ids = dict(zip(there.tolist(), ids.take(pa.array(there)).to_pylist(), strict=True))
    shown = {*found_ids.values(), *queries}
    facts = {
        row["image_id"]: row
        for row in images.filter(
            pc.is_in(images["image_id"], pa.array(sorted(shown), pa.string()))
        ).to_pylist()
    }
    examples = []
    for image, scores, neighbours in zip(queries, similarity, rows, strict=True):
        matches = [
            Match(
                found_ids[row],
                float(score),
                _distance(facts[image], facts[found_ids[row]]),
                _thumbnail(run, facts[found_ids[row]]),
            )
            for score, row in zip(scores, neighbours.tolist(), strict=True)
            if row >= 0 and found_ids[row] != image
        ]
        examples.append(Retrieval(image, _thumbnail(run, facts[image]), matches[:_MATCHES]))
    return examples


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
