"""Which way is up in a reconstruction: cameras are held about upright."""

from __future__ import annotations

import numpy as np

from vladmap.mapping.arrays import Array

# How far a camera's mount, or a photographer's habit, may lean, in radians, one sigma: sideways
# they are held upright, up and down they may look. On top of that each image leans on its own, by
# what the images themselves show but no less than the floor; neighbours lean alike, so that so
# many of them count as one.
_MOUNT_ROLL_SIGMA = np.radians(2.0)
_MOUNT_PITCH_SIGMA = np.radians(10.0)
_LEAN_FLOOR = np.radians(0.5)
_ALIKE = 4.0
# Of Cauchy weights: 95 % as good as least squares where the noise is Gaussian.
CAUCHY_SIGMAS = 2.385


def vertical_of(world_from_camera: Array) -> tuple[Array, Array]:
    """Return the direction up (3,) in the model, and the square root (3, 3) of its information.

    The roll and pitch of n upright cameras, (n, 3, 3), are those of their mount, the same for all,
    plus their own. Seen under all headings a mount's lean cancels; along a straight street it
    cannot be told from the street's, and the prior on mounts decides.
    """
    right, forward = world_from_camera[:, :, 0], world_from_camera[:, :, 2]
    up = -world_from_camera[:, :, 1].mean(axis=0)
    up /= max(float(np.linalg.norm(up)), 1e-12)
    count = len(world_from_camera)
    for _ in range(10):
        _, _, axes = np.linalg.svd(up[None])
        tangent = axes[1:].T
        # Unknown: two tangent steps of `up`, the mount's roll and its pitch.
        design = np.zeros((2 * count, 4))
        design[:count, :2], design[count:, :2] = right @ tangent, forward @ tangent
        design[:count, 2] = design[count:, 3] = -1.0
        lean = np.concatenate([right @ up, forward @ up])
        own = lean - np.repeat([np.median(lean[:count]), np.median(lean[count:])], count)
        scatter = np.repeat(
            [
                max(_LEAN_FLOOR, 1.4826 * float(np.median(np.abs(part))))
                for part in (own[:count], own[count:])
            ],
            count,
        )
        robust = 1.0 / (1.0 + (own / scatter / CAUCHY_SIGMAS) ** 2)
        weight = robust / scatter**2 / _ALIKE
        normal = design.T @ (weight[:, None] * design)
        normal += np.diag([0.0, 0.0, _MOUNT_ROLL_SIGMA**-2, _MOUNT_PITCH_SIGMA**-2])
        step = np.linalg.lstsq(normal, -design.T @ (weight * lean), rcond=None)[0]
        up = up + tangent @ step[:2]
        up /= np.linalg.norm(up)
        if np.linalg.norm(step[:2]) < 1e-9:
            break
    # The mount is eliminated: what remains is known of `up` alone.
    information = normal[:2, :2] - normal[:2, 2:] @ np.linalg.solve(normal[2:, 2:], normal[2:, :2])
    value, vector = np.linalg.eigh(information)
    root = (vector * np.sqrt(np.maximum(value, 0.0))).T @ tangent.T
    return up, np.vstack([root, np.zeros((1, 3))])
