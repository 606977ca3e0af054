"""Beam counters of a stage."""

from __future__ import annotations

import apache_beam as beam


class StageCounters:
    """Beam counters in a namespace named after the stage."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._counters: dict[str, beam.metrics.metric.Metrics.DelegatingCounter] = {}

    def add(self, name: str, count: int = 1) -> None:
        if name not in self._counters:
            self._counters[name] = beam.metrics.Metrics.counter(f"vladmap.{self._stage}", name)
        self._counters[name].inc(count)
