"""What GPS and the drives say of images that a merge puts into one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vladmap.mapping.arrays import Array, Origin
from vladmap.mapping.georegister import Similarity, georegister
from vladmap.mapping.gps import gps_positions
from vladmap.mapping.placement import origin_of
from vladmap.mapping.soundness import misplaced_places

# GPS and sequences may contradict so large a share of a joined model's images that they did not
# contradict before.
_MAX_NEW_MISPLACED = 0.05


@dataclass(frozen=True)
class GpsFit:
    """Images that GPS places as a whole.

    `residuals` are the horizontal distances from GPS in metres, by name, of the images that have a
    position; `misplaced` are the images that GPS and their drives have elsewhere. `placement`
    carries the frame of the images to the east-north-up frame at `origin`. Where GPS cannot place
    the images, it is None and the others are empty.
    """

    residuals: dict[str, float] = field(default_factory=dict)
    misplaced: frozenset[str] = frozenset()
    placement: Similarity | None = None
    origin: Origin = (0.0, 0.0, 0.0)

    @property
    def median(self) -> float:
        """Return the median residual in metres; 0 without any."""
        return float(np.median(list(self.residuals.values()))) if self.residuals else 0.0


def fit_to_gps(
    names: Sequence[str],
    centres: Array,
    rotations: Array,
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float,
) -> GpsFit:
    """Georegister images of one frame and return what GPS says of each.

    `centres` (n, 3) and `rotations` (n, 3, 3), world_from_camera, are their poses; `by_name` gives
    each image name its row of IMAGES.
    """
    rows = [by_name[name] for name in names]
    origin = origin_of(rows)
    placed = georegister(centres, rotations, gps_positions(rows, origin, gps_sigma_m))
    if placed is None:
        return GpsFit()
    known = zip(names, placed.horizontal.tolist(), strict=True)
    on_earth = placed.enu_from_model.apply(centres)
    return GpsFit(
        {name: residual for name, residual in known if np.isfinite(residual)},
        frozenset(misplaced_places(names, on_earth, by_name, origin, gps_sigma_m)),
        placed.enu_from_model,
        origin,
    )


def newly_misplaced(joint: GpsFit, alone: Sequence[GpsFit], images: int) -> set[str]:
    """Return the images that a join misplaces, and no part alone; none if they are few enough.

    Where GPS shifts two drives against each other, residuals may grow at their joint. What may not
    happen is that photographs come to lie elsewhere than GPS and sequences allow. `images` counts
    those of the join.
    """
    new = set(joint.misplaced).difference(*(each.misplaced for each in alone))
    return new if len(new) > _MAX_NEW_MISPLACED * images else set()
