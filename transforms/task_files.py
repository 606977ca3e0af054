"""A transform of tasks, given where they lie in a file (atlas.task_files)."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam

from vladmap.atlas.task_files import read_task


@dataclass(eq=False)
class OnStoredTasks(beam.PTransform):
    """Read each task where `transform`, which takes tasks, works on it; both on the same workers,
    with the same hints to the runner."""

    root: str
    transform: beam.PTransform

    def expand(self, stored: beam.PCollection) -> beam.PCollection:
        read = beam.Map(read_task, self.root)
        read.get_resource_hints().update(self.transform.get_resource_hints())
        return stored | "Read task" >> read | self.transform
