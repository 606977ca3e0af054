"""A shuffle that spreads elements over the workers and that a lost worker does not undo."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam


@dataclass(eq=False)
class Spread(beam.PTransform):
    """Elements -> the same elements, over all workers; what came before is done once.

    `key` makes a whole number of an element. Equal elements have equal keys, and elements of one
    key go to one worker.

    `beam.Reshuffle` needs no key, but only the pipeline's first shuffle may be one: Spark deals its
    elements out in turn, so after another shuffle, whose order is open, it cannot deal them again
    as before. When a worker is lost then, the job fails (SPARK-25341, Beam's issue 19160). A
    shuffle by keys is repeated for the lost worker alone.
    """

    key: Callable[[Any], int]

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        return (
            elements
            | "Key" >> beam.Map(self._keyed).with_output_types(tuple[int, Any])
            | "Spread" >> beam.GroupByKey()
            | "Drop key" >> beam.FlatMap(_values)
        )

    def _keyed(self, element: Any) -> tuple[int, Any]:
        return self.key(element), element


def _values(group: tuple[int, Iterable[Any]]) -> Iterable[Any]:
    return group[1]
