"""Which way is up in a reconstruction, from the assumption that cameras are held upright."""

from __future__ import annotations

import numpy as np

from vladmap.mapping.arrays import Array

# A camera's roll and pitch are the sum of two parts. One is that of its mount, or of the habit of
# the photographer, and is the same in all images: a normal prior with these standard deviations,
# wide for the pitch, since cameras may look up or down.
_MOUNT_ROLL_SIGMA = np.radians(2.0)
_MOUNT_PITCH_SIGMA = np.radians(10.0)
# The other part is each image's own. Its scatter is estimated from the images, but is taken to be
# no less than this.
_LEAN_FLOOR = np.radians(0.5)
# The images' own parts are correlated along a street: four images carry the information of one
# independent image.
_CORRELATED_IMAGES = 4.0
# Scale of Cauchy weights, in standard deviations: at this scale they are 95 % as efficient as
# least squares if the noise is Gaussian (Holland and Welsch, 1977).
CAUCHY_SIGMAS = 2.385


def vertical_of(world_from_camera: Array) -> tuple[Array, Array]:
    """Return the direction up (3,) in the model, and the square root (3, 3) of its information.

    `world_from_camera` (n, 3, 3) are rotations with camera axes right, down, forward. Unknown are
    the direction up and the roll and pitch of the mount that all n cameras share; they are
    estimated by robust least squares. If the cameras look in all directions, the mount's roll and
    pitch cancel out. Along a straight street they cannot be separated from the tilt of the model,
    and the prior on mounts decides how certain the result is.
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
        weight = robust / scatter**2 / _CORRELATED_IMAGES
        normal = design.T @ (weight[:, None] * design)
        normal += np.diag([0.0, 0.0, _MOUNT_ROLL_SIGMA**-2, _MOUNT_PITCH_SIGMA**-2])
        step = np.linalg.lstsq(normal, -design.T @ (weight * lean), rcond=None)[0]
        up = up + tangent @ step[:2]
        up /= np.linalg.norm(up)
        if np.linalg.norm(step[:2]) < 1e-9:
            break
    # The Schur complement eliminates the mount and leaves the information on `up` alone.
    information = normal[:2, :2] - normal[:2, 2:] @ np.linalg.solve(normal[2:, 2:], normal[2:, :2])
    value, vector = np.linalg.eigh(information)
    root = (vector * np.sqrt(np.maximum(value, 0.0))).T @ tangent.T
    return up, np.vstack([root, np.zeros((1, 3))])
