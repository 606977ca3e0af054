"""Rotation matrices of rotation vectors, and angles between rotations."""

from __future__ import annotations

import numpy as np

from vladmap.mapping.arrays import Array


def rotation_to_z(direction: Array) -> Array:
    """Return the smallest rotation that carries a unit vector to (0, 0, 1)."""
    axis = np.cross(direction, [0.0, 0.0, 1.0])
    sine, cosine = np.linalg.norm(axis), direction[2]
    if sine < 1e-12:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    return rotation_matrix(axis / sine * np.arctan2(sine, cosine))


def rotation_matrix(vector: Array) -> Array:
    """Return the rotation matrix of a rotation vector in radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    cross = cross_matrices((vector / angle)[None])[0]
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross


def cross_matrices(vectors: Array) -> Array:
    """Return the (n, 3, 3) matrices whose products are cross products with (n, 3) `vectors`."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack(
        [
            np.stack([zero, -z, y], axis=-1),
            np.stack([z, zero, -x], axis=-1),
            np.stack([-y, x, zero], axis=-1),
        ],
        axis=-2,
    )


def turns_deg(first: Array, second: Array) -> Array:
    """Return the angles (n,) in degrees between rotations (n, 3, 3); exact near zero."""
    between = first.transpose(0, 2, 1) @ second
    skew = between - between.transpose(0, 2, 1)
    sine = np.linalg.norm(skew[:, [2, 0, 1], [1, 2, 0]], axis=1) / 2
    cosine = (np.trace(between, axis1=1, axis2=2) - 1) / 2
    return np.degrees(np.arctan2(sine, cosine))
