"""Drives by their odometry alone: neighbours' relative poses, one after the other, no loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.graph import connected_components
from vladmap.mapping.groups import group_medians
from vladmap.mapping.view_graph.pairs import MatchedPairs
from vladmap.mapping.view_graph.solve import Located, PoseGraph

NEIGHBOURS = 15
"""Photographs of one drive at most so many places apart are neighbours: a pair of others, or of two
drives, is a loop."""

# Odometry is made of pairs so many places apart, or fewer.
_LINK = 5


@dataclass(frozen=True)
class Odometry:
    """n images, each in the frame of the piece of a drive that neighbours' pairs connect.

    `piece` (n,) names the piece by the row of its first image, which is its frame; -1 for an image
    that no neighbour holds. `pose` (n, 4, 4) carries points of the piece to the camera, in metres.
    `travelled` (n,) are the metres along the piece to the image.
    """

    piece: Indices
    pose: Array
    travelled: Array

    @property
    def centre(self) -> Array:
        """The projection centres (n, 3) in their pieces' frames."""
        return -np.einsum("nji,nj->ni", self.pose[:, :3, :3], self.pose[:, :3, 3])


def are_loops(sequence: Indices, index: Indices, first: Indices, second: Indices) -> Bools:
    """Which pairs, (m,), are loops: of two drives, or of one drive and far apart in it.

    `sequence` and `index` (n,) are the drive of each image, -1 for none, and its place in it.
    Photographs of no drive have no neighbours, and their pairs close no loop.
    """
    of_drives = (sequence[first] >= 0) & (sequence[second] >= 0)
    apart = np.abs(index[first] - index[second]) > NEIGHBOURS
    return of_drives & ((sequence[first] != sequence[second]) | apart)


def pair_poses(pairs: MatchedPairs, graph: PoseGraph) -> Array:
    """The relative poses (m, 4, 4) of pairs, second_from_first in metres; NaN where unknown.

    Lengths of baselines are those that shared keypoints give, times the scale at which they fit the
    positions of the graph best: the median over the pairs of each unit.
    """
    pose = np.tile(np.eye(4), (len(pairs), 1, 1))
    apart = np.linalg.norm(graph.position[pairs.second] - graph.position[pairs.first], axis=1)
    ratio = np.log(np.maximum(apart, 1e-6)) - graph.log_length
    known, units = np.isfinite(ratio), int(graph.unit.max(initial=-1)) + 1
    scale = group_medians(ratio[known], graph.unit[known], units)
    # A pair alone has no length of its own: it would have that of the graph.
    scale[np.bincount(graph.unit[known], minlength=units) < 2] = np.nan
    length = np.exp(graph.log_length + scale[graph.unit])
    pose[:, :3, :3] = pairs.rotation
    pose[:, :3, 3] = pairs.direction * length[:, None]
    pose[~np.isfinite(pose).all(axis=(1, 2))] = np.nan
    return pose


def drive_odometry(images: Located, pairs: MatchedPairs, pose: Array) -> Odometry:
    """Chain the relative `pose` (m, 4, 4) of neighbours along each drive.

    Each image hangs on the nearest neighbours that a pair with a known pose joins it to: a minimum
    spanning tree of the gaps in the drive, strong pairs before weak ones.
    """
    count = len(images.sequence)
    first, second = pairs.first, pairs.second
    gap = np.abs(images.index[first] - images.index[second])
    link = (images.sequence[first] == images.sequence[second]) & (images.sequence[first] >= 0)
    link = np.flatnonzero(link & (gap <= _LINK) & np.isfinite(pose[:, 0, 0]))
    cost = gap[link] + 1.0 / (1.0 + pairs.inliers[link])
    tree = minimum_spanning_tree(coo_matrix((cost, (first[link], second[link])), (count, count)))
    component = connected_components(count, first[link], second[link])
    order = np.lexsort((images.index, component))
    roots = order[np.unique(component[order], return_index=True)[1]]
    # One more node, from which all trees are reached at once.
    ends = np.concatenate([tree.nonzero(), [np.full(len(roots), count), roots]], axis=1)
    whole = coo_matrix((np.ones(ends.shape[1]), ends), (count + 1, count + 1))
    _, before = breadth_first_order(whole.tocsr(), count, directed=False)
    parent = before[:count].astype(np.int64)
    parent[roots] = roots
    chained = _chained(parent, first[link], second[link], pose[link])
    root_of = np.zeros(count, np.int64)
    root_of[component[roots]] = roots
    alone = np.bincount(component, minlength=count)[component] < 2
    piece = np.where(alone, -1, root_of[component])
    result = Odometry(piece, chained, np.zeros(count))
    return Odometry(piece, chained, _travelled(result, images.index))


def _chained(parent: Indices, first: Indices, second: Indices, pose: Array) -> Array:
    """Poses (n, 4, 4) camera_from_root, of trees of parents, by pointer jumping."""
    count = len(parent)
    key = np.concatenate([first * count + second, second * count + first])
    both = np.concatenate([np.linalg.inv(pose), pose]) if len(pose) else np.zeros((0, 4, 4))
    order = np.argsort(key, kind="stable")
    child = np.flatnonzero(parent != np.arange(count))
    at = np.searchsorted(key[order], child * count + parent[child])
    chained = np.tile(np.eye(4), (count, 1, 1))
    chained[child] = both[order[at]]
    while (parent != parent[parent]).any():
        chained = chained @ chained[parent]
        parent = parent[parent]
    return chained


def _travelled(odometry: Odometry, index: Indices) -> Array:
    order = np.lexsort((index, odometry.piece))
    piece, centre = odometry.piece[order], odometry.centre[order]
    step = np.linalg.norm(np.diff(centre, axis=0), axis=1)
    way = np.concatenate([[0.0], np.cumsum(np.where(np.diff(piece) == 0, step, 0.0))])
    begin = np.maximum.accumulate(np.where(np.diff(piece, prepend=-2) != 0, np.arange(len(way)), 0))
    travelled = np.zeros(len(order))
    travelled[order] = way - way[begin]
    return travelled
