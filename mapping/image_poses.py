"""One pose for each image of tiles that are in one frame.

An image that several tiles hold has a pose in each. Where these agree, they are blended; where they
do not, most of the evidence decides, or the image is given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.georegister import Similarity
from vladmap.mapping.rotations import turns_deg
from vladmap.mapping.tile_arrays import TileArrays

MAX_TURN_DEG = 3.0
"""Two poses of an image differ if their directions are further apart."""
# An image that differs by more than so many limits is wrong in one tile; one that differs by less
# shows that the tiles are bent.
_FAR = 4.0
# An image whose poses lie far apart is given up unless one of them has so many times the points of
# the other.
_CLEARLY_MORE = 1.5


@dataclass(frozen=True)
class Candidates:
    """The m poses of images in one frame, by image and then by tile.

    `image` and `tile` (m,) are their numbers, `points` (m,) how many points the image sees in the
    tile, `centres` (m, 3) and `rotations` (m, 3, 3), world_from_camera, the poses.
    """

    image: Indices
    tile: Indices
    points: Indices
    centres: Array
    rotations: Array

    def differs(self, first: Indices, second: Indices, limit: float, times: float = 1.0) -> Bools:
        """Return which pairs of rows, (k,), lie over so many times the limits apart."""
        moved = np.linalg.norm(self.centres[first] - self.centres[second], axis=1)
        turned = turns_deg(self.rotations[first], self.rotations[second])
        return np.asarray((moved > times * limit) | (turned > times * MAX_TURN_DEG), bool)


@dataclass(frozen=True)
class SettledPoses:
    """One pose for each of n images, by number.

    `image` (n,) increases; `centres` (n, 3), `rotations` (n, 3, 3) as in Candidates; `tile` (n,)
    is the tile that has most evidence for the pose, `tiles` (n,) how many agree in it. `accepted`
    are the (image, tile) pairs, (k, 2), of all tiles that agree in a pose; `torn` are the images
    that were given up.
    """

    image: Indices
    centres: Array
    rotations: Array
    tile: Indices
    tiles: Indices
    accepted: Indices
    torn: Indices


def candidates_of(tiles: Sequence[TileArrays], similarities: Sequence[Similarity]) -> Candidates:
    """Return the poses of all images in the frame to which the similarities carry the tiles."""
    image = np.concatenate([each.image for each in tiles])
    tile = np.repeat(np.arange(len(tiles)), [len(each.image) for each in tiles])
    points = np.concatenate([each.points_seen for each in tiles])
    moved = list(zip(similarities, tiles, strict=True))
    centres = np.concatenate([to.apply(each.centres) for to, each in moved])
    rotations = np.concatenate([to.rotation @ each.rotations for to, each in moved])
    order = np.lexsort((tile, image))
    return Candidates(image[order], tile[order], points[order], centres[order], rotations[order])


def settle(candidates: Candidates, limit: float) -> SettledPoses:
    """Return one pose for each image.

    `limit` is the distance from which on two poses differ. The pose that most points support, its
    own and those of poses that agree with it, is blended with these; equal ones in the order of the
    tiles. If a pose lies far from it (over four limits) and has nearly as much support, one of them
    is wrong and nothing says which: the image is given up.
    """
    image, points = candidates.image, candidates.points
    first, second = _same_image(image)
    agree = ~candidates.differs(first, second, limit)
    support = points.astype(np.float64)
    np.add.at(support, first[agree], points[second[agree]])
    np.add.at(support, second[agree], points[first[agree]])

    numbers, of_image = np.unique(image, return_inverse=True)
    best = np.lexsort((candidates.tile, -points, -support, image))
    chosen = best[np.unique(image[best], return_index=True)[1]]
    chosen_of = chosen[of_image]
    every = np.arange(len(image))
    far = candidates.differs(every, chosen_of, limit, _FAR)
    rivals = far & (_CLEARLY_MORE * support > support[chosen_of])
    torn = np.bincount(of_image, rivals, len(numbers)) > 0

    used = ~candidates.differs(every, chosen_of, limit) & ~torn[of_image]
    rows, settled = np.flatnonzero(used), np.flatnonzero(~torn)
    place = np.searchsorted(settled, of_image[rows])
    centres, rotations = _blended(candidates, rows, place, len(settled))
    return SettledPoses(
        numbers[settled],
        centres,
        rotations,
        candidates.tile[chosen[settled]],
        np.bincount(place, minlength=len(settled)),
        np.stack([image[rows], candidates.tile[rows]], axis=1),
        numbers[torn],
    )


def _same_image(image: Indices) -> tuple[Indices, Indices]:
    """Return all pairs of rows of one image; `image` (m,) is sorted."""
    firsts, seconds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for step in range(1, len(image)):
        rows = np.flatnonzero(image[step:] == image[:-step])
        if len(rows) == 0:
            break
        firsts.append(rows)
        seconds.append(rows + step)
    return np.concatenate(firsts), np.concatenate(seconds)


def _blended(
    candidates: Candidates, rows: Indices, place: Indices, count: int
) -> tuple[Array, Array]:
    """Return the means of poses, weighted by points; `place` (k,) is where each row belongs.

    The mean rotation is the nearest to the mean matrix (chordal L2; Hartley et al., IJCV 2013). An
    image of one tile keeps its pose to the last bit.
    """
    weight = candidates.points[rows] + 1.0
    total = np.bincount(place, weight, count)
    centres, matrices = np.zeros((count, 3)), np.zeros((count, 3, 3))
    np.add.at(centres, place, weight[:, None] * candidates.centres[rows])
    np.add.at(matrices, place, weight[:, None, None] * candidates.rotations[rows])
    u, _, vt = np.linalg.svd(matrices)
    rotations = u @ vt
    alone = np.bincount(place, minlength=count)[place] == 1
    centres /= total[:, None]
    centres[place[alone]] = candidates.centres[rows[alone]]
    rotations[place[alone]] = candidates.rotations[rows[alone]]
    return centres, rotations
