"""Pairs between drives in which one kind of features found too little, tried again by another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

from vladmap.atlas import layout, storage
from vladmap.atlas.task_inputs import read_tables
from vladmap.features.base import LocalFeatures
from vladmap.features.names import BETWEEN_DRIVES
from vladmap.features.registry import feature_kind, load_matcher
from vladmap.mapping.camera import Camera
from vladmap.mapping.second_views import (
    SecondKind,
    between_drives,
    second_view,
)
from vladmap.mapping.two_view import TwoView
from vladmap.schemas.records import Task
from vladmap.transforms.feature_shards import FeatureShards

_NEAR = "near"


def load_second(name: str, device: str) -> SecondKind:
    """Features of the second kind by name, with their network on `device`."""
    return SecondKind(feature_kind(name), load_matcher(name, BETWEEN_DRIVES[name], device))


class SecondLook:
    """The second look at the pairs of a task, which reads `pairs`, `images` and SECOND_FEATURES.

    `again` counts the pairs that were tried again, `gained` those that hold by the second kind.
    """

    def __init__(self, root: str, task: Task, second: SecondKind) -> None:
        self._second, self._features = (
            second,
            FeatureShards(root, task.paths(layout.SECOND_FEATURES)),
        )
        drives: dict[str, str | None] = {}
        for images in read_tables(root, task, layout.IMAGES, ["image_id", "sequence_id"]):
            columns = (images[name].to_pylist() for name in ("image_id", "sequence_id"))
            drives.update(zip(*columns, strict=True))
        pairs = storage.read_table(
            storage.join(root, task.path(layout.PAIRS)),
            ["image_id_a", "image_id_b", "sources", "gps_distance_m"],
        )
        self._between = {
            (row["image_id_a"], row["image_id_b"])
            for row in pairs.to_pylist()
            if between_drives(
                drives.get(row["image_id_a"]),
                drives.get(row["image_id_b"]),
                row["gps_distance_m"],
                _NEAR in row["sources"],
            )
        }
        self.again = self.gained = 0

    def at(
        self,
        views: Sequence[TwoView],
        first: Mapping[str, LocalFeatures],
        cameras: Mapping[str, Camera],
        pool: Executor,
    ) -> list[TwoView]:
        """The views, in their order, after the second look; `first` are the features of the first
        kind, of one or two shards."""
        known = self._features.shards
        chosen = [
            row
            for row, view in enumerate(views)
            if (view.image_id_a, view.image_id_b) in self._between
            and not view.verified
            and view.image_id_a in known
            and view.image_id_b in known
        ]
        wanted = {end for row in chosen for end in (views[row].image_id_a, views[row].image_id_b)}
        features = self._features.of([known[image] for image in wanted], wanted)

        def look(row: int) -> TwoView:
            view = views[row]
            a, b = view.image_id_a, view.image_id_b
            return second_view(
                view,
                (len(first[a]), len(first[b])),
                features[a],
                features[b],
                self._second,
                cameras[a],
                cameras[b],
            )

        found = list(views)
        for row, view in zip(chosen, pool.map(look, chosen), strict=True):
            self.gained += view is not views[row]
            found[row] = view
        self.again += len(chosen)
        return found
