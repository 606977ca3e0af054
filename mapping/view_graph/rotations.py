"""Rotation averaging: one rotation for each image from the relative rotations of pairs."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.spatial.transform import Rotation

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.graph import connected_components
from vladmap.mapping.symmetric import solve_symmetric

# The scale of the Geman-McClure weights shrinks from and to so many degrees.
_WIDTHS_DEG = np.geomspace(20.0, 1.5, 12)
# A pair with more inliers weighs no more than one with so many.
_INLIERS_THAT_COUNT = 200.0


def average_rotations(
    images: int, first: Indices, second: Indices, rotation: Array, inliers: Array
) -> tuple[Array, Indices]:
    """Return the rotation (n, 3, 3) of each image and the component (n,) within which it holds.

    `rotation` (m, 3, 3) is second_from_first. The result is camera_from_world, where the world of
    each component is the frame of one of its images. It starts from a maximum spanning tree by
    inliers; then all rotations are adjusted together to the residuals of all pairs, wrong ones
    down-weighted by graduated non-convexity (Chatterjee and Govindu, TPAMI 2018; Yang et al., RA-L
    2020).
    """
    component = connected_components(images, first, second)
    result = _along_tree(images, first, second, rotation, inliers)
    trust = np.minimum(inliers, _INLIERS_THAT_COUNT) / _INLIERS_THAT_COUNT
    every = np.arange(images)
    for width in np.radians(_WIDTHS_DEG):
        # Written in the world frame, the residuals of all pairs are differences of vectors.
        residual = Rotation.from_matrix(
            np.einsum("mji,mjk,mkl->mil", result[second], rotation, result[first])
        ).as_rotvec()
        size = np.linalg.norm(residual, axis=1)
        weight = trust / (1.0 + (size / width) ** 2) ** 2
        diagonal = np.bincount(first, weight, images) + np.bincount(second, weight, images) + 1e-9
        normal = coo_matrix(
            (
                np.concatenate([diagonal, -weight, -weight]),
                (np.concatenate([every, first, second]), np.concatenate([every, second, first])),
            ),
            (images, images),
        ).tocsc()
        right = np.zeros((images, 3))
        np.add.at(right, second, weight[:, None] * residual)
        np.add.at(right, first, -weight[:, None] * residual)
        step = solve_symmetric(normal, right).reshape(images, 3)
        result = result @ Rotation.from_rotvec(step).as_matrix()
    return result, component


def _along_tree(
    images: int, first: Indices, second: Indices, rotation: Array, inliers: Array
) -> Array:
    """Rotations chained along the maximum spanning tree of each component, from its best image."""
    cost = coo_matrix((1.0 / (1.0 + inliers), (first, second)), (images, images)).tocsr()
    tree = minimum_spanning_tree(cost)
    both = (tree + tree.T).tocsr()
    degree = np.diff(both.indptr)
    component = connected_components(images, first, second)
    pair_of = {
        ends: row for row, ends in enumerate(zip(first.tolist(), second.tolist(), strict=True))
    }
    result = np.tile(np.eye(3), (images, 1, 1))
    roots = np.lexsort((np.arange(images), -degree))
    _, at = np.unique(component[roots], return_index=True)
    for root in roots[at].tolist():
        order, parents = breadth_first_order(both, root, directed=False)
        for image in order[1:].tolist():
            parent = int(parents[image])
            forward = pair_of.get((parent, image))
            turn = rotation[pair_of[image, parent]].T if forward is None else rotation[forward]
            result[image] = turn @ result[parent]
    return result
