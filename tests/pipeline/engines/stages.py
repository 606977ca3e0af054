"""A small pipeline with every shape that a stage of vladmap has. Workers import it by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

NAMESPACE = "vladmap.shapes"
SHARDS, IMAGES = 6, 20


@dataclass(frozen=True)
class Shard:
    """A task: what crosses the shuffle is ids, never what they stand for."""

    name: str
    images: tuple[int, ...]


def shards() -> list[Shard]:
    """Shards of 20 images each; image i is i."""
    return [Shard(f"shard-{n}", tuple(range(n * IMAGES, (n + 1) * IMAGES))) for n in range(SHARDS)]


class Describe(beam.DoFn):
    """Images of a shard to (cell, (image, value)), with a resource loaded in setup()."""

    def __init__(self, weights: str, marks: str) -> None:
        self._weights, self._marks = weights, marks
        self._count = Metrics.counter(NAMESPACE, "images")
        self._size = Metrics.distribution(NAMESPACE, "shard_images")

    def setup(self) -> None:
        self._loaded = np.load(self._weights)
        Path(self._marks, str(os.getpid())).touch()

    def process(self, shard: Shard) -> Iterator[tuple[str, tuple[int, float]]]:
        self._count.inc(len(shard.images))
        self._size.update(len(shard.images))
        for image in shard.images:
            yield f"cell-{image % 4}", (image, float(self._loaded[image % 7] * image))


def write_cell(
    cell: tuple[str, Iterable[tuple[int, float]]],
    total: float,
    counts: dict[str, int],
    out: str,
) -> tuple[str, int]:
    """A cell's rows to a table of its own, written aside and renamed; (cell, rows)."""
    name, rows = cell
    ordered = sorted(rows)
    table = pa.table(
        {
            "id": [image for image, _ in ordered],
            "share": [value / total for _, value in ordered],
            "expected": [counts[name]] * len(ordered),
        }
    )
    path = Path(out, "cells", f"{name}.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, partial)
    partial.rename(path)
    return name, len(ordered)


def write_summary(rows: Sequence[tuple[str, int]], out: str) -> None:
    """What the cells committed, in one table."""
    table = pa.table({"image_id": [n for n, _ in sorted(rows)], "n": [c for _, c in sorted(rows)]})
    pq.write_table(table, Path(out, "summary.parquet"))


def run(out: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Run the pipeline into `out`; returns its own metrics."""
    marks = out.parent / f"{out.name}-workers"
    marks.mkdir(parents=True)
    out.mkdir()
    weights = out.parent / f"{out.name}-weights.npy"
    np.save(weights, np.linspace(0.5, 2.0, 7))
    pipeline = beam.Pipeline(options=PipelineOptions(list(flags)))
    described = (
        pipeline
        | beam.Create(shards())
        | beam.Reshuffle()
        | "Describe" >> beam.ParDo(Describe(str(weights), str(marks)))
    )
    # Whole numbers: their sum is the same in any order.
    total = (
        described | "Values" >> beam.Map(lambda kv: kv[1][1] // 0.25) | beam.CombineGlobally(sum)
    )
    counts = described | beam.combiners.Count.PerKey()
    (
        described
        | beam.GroupByKey()
        | "Write"
        >> beam.Map(
            write_cell, beam.pvalue.AsSingleton(total), beam.pvalue.AsDict(counts), str(out)
        )
        | beam.combiners.ToList()
        | "Summary" >> beam.Map(write_summary, str(out))
    )
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
    (images,), (sizes,) = found["counters"], found["distributions"]
    return {
        "images": images.result,
        "shards": sizes.result.count,
        "largest": sizes.result.max,
        "processes": {int(mark.name) for mark in marks.iterdir()},
    }
