"""Places that were seen from one camera under many conditions, as `vladmap worlds --aligned` writes
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
    """The photographs of one place, sorted, and which of them are `clear`."""

    paths: tuple[Path, ...]
    clear: tuple[int, ...]


def aligned_scenes(root: Path, clear: Sequence[str]) -> list[AlignedScene]:
    """Scenes of `root`/images/train/database by what their names say: `@...@place@...@condition@`.

    Sorted by place, conditions in the order of their names. Raises UserError where there are none,
    or a place lacks every condition that is `clear`.
    """
    places: dict[str, dict[str, Path]] = {}
    for path in list_photos(root / "images" / "train" / "database"):
        fields = path.name.split("@")
        if len(fields) <= _CONDITION or not fields[_PLACE]:
            raise UserError(f"{path}: the name says no place and condition (vladmap worlds does)")
        places.setdefault(fields[_PLACE], {})[fields[_CONDITION]] = path
    scenes = []
    for place, seen in sorted(places.items()):
        names = sorted(seen)
        bright = tuple(row for row, name in enumerate(names) if name in clear)
        if not bright:
            raise UserError(f"{root}: the place {place} was not seen by {' or '.join(clear)}")
        scenes.append(AlignedScene(tuple(seen[name] for name in names), bright))
    return scenes
