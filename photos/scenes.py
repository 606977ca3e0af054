"""Places photographed from one pose under many conditions, as `vladmap worlds --aligned` writes
them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vladmap.photos.places import list_photos
from vladmap.schemas.rejects import UserError

_PLACE, _CONDITION = 7, 14  # fields of a name between its @


@dataclass(frozen=True)
class AlignedScene:
    """The sorted photographs of one place, and the indices of those that are `clear`."""

    paths: tuple[Path, ...]
    clear: tuple[int, ...]


def aligned_scenes(root: Path, clear: Sequence[str]) -> list[AlignedScene]:
    """Scenes of `root`/images/train/database, by file names `@...@place@...@condition@`.

    They are sorted by place, the photographs of each by condition. Raises UserError where there are
    none, or a place has none of the conditions in `clear`.
    """
    places: dict[str, dict[str, Path]] = {}
    for path in list_photos(root / "images" / "train" / "database"):
        fields = path.name.split("@")
        if len(fields) <= _CONDITION or not fields[_PLACE]:
            raise UserError(f"{path}: the name says no place and condition (vladmap worlds does)")
        places.setdefault(fields[_PLACE], {})[fields[_CONDITION]] = path
    scenes = []
    for place, by_condition in sorted(places.items()):
        names = sorted(by_condition)
        bright = tuple(row for row, name in enumerate(names) if name in clear)
        if not bright:
            raise UserError(f"{root}: the place {place} was not seen by {' or '.join(clear)}")
        scenes.append(AlignedScene(tuple(by_condition[name] for name in names), bright))
    return scenes
