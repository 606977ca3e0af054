"""The pose of a photograph against points whose places are known (perspective-n-point)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Array, Bools
from vladmap.mapping.camera import max_error_px
from vladmap.mapping.colmap import SEED
from vladmap.mapping.rotations import rotation_matrix

MIN_INLIERS = 15
"""As many as a verified pair and as evidence need."""
# COLMAP's bound for registering an image: below it, most of what agrees does so by chance.
_MIN_INLIER_SHARE = 0.25
_SMALLEST_STEP = 1e-6
# The standard deviation of a normal distribution over its median absolute deviation.
_MAD = 1.4826


@dataclass(frozen=True)
class Registration:
    """Where a photograph was taken: `rotation` (3, 3) is camera_from_world, `centre` (3,) the
    projection centre in the world's unit.

    `inliers` (k,) says which correspondences agree with it. `covariance` (6, 6) is that of the
    centre, in squared units, and of the rotation, as a vector about the camera's axes in squared
    radians: of the errors of the keypoints alone, with the points held for exact.
    """

    rotation: Array
    centre: Array
    inliers: Bools
    covariance: Array

    def centre_sigma(self) -> float:
        """Return the standard deviation of the centre in its least certain direction."""
        if not np.isfinite(self.covariance).all():
            return float("inf")
        return float(np.sqrt(np.linalg.eigvalsh(self.covariance[:3, :3])[-1]))


def register(
    pixels: Array,
    points: Array,
    camera: pycolmap.Camera,
    min_inliers: int = MIN_INLIERS,
    min_inlier_share: float = _MIN_INLIER_SHARE,
) -> Registration | None:
    """Return the pose from which `points` (k, 3) are seen at `pixels` (k, 2), or None.

    None: fewer than `min_inliers` different points agree on any pose, or a smaller share of all
    correspondences than `min_inlier_share`. COLMAP's LO-RANSAC over minimal solutions (P3P; Chum,
    Matas and Kittler, DAGM 2003), with a fixed seed, then a robust refinement; the intrinsics stay.
    A pixel or a point may occur several times, with several partners.
    """
    if len(pixels) < min_inliers:
        return None
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = max_error_px(max(camera.width, camera.height))
    options.ransac.random_seed = SEED
    pycolmap.set_random_seed(SEED)
    found = pycolmap.estimate_and_refine_absolute_pose(
        np.ascontiguousarray(pixels, np.float64),
        np.ascontiguousarray(points, np.float64),
        camera,
        options,
        pycolmap.AbsolutePoseRefinementOptions(),
    )
    if found is None:
        return None
    pose = found["cam_from_world"]
    rotation = np.asarray(pose.rotation.matrix(), np.float64)
    centre = np.asarray(pose.tgt_origin_in_src(), np.float64)
    inliers = _errors(pixels, points, camera, rotation, centre) <= options.ransac.max_error
    distinct = min(len(np.unique(each[inliers], axis=0)) for each in (pixels, points))
    if distinct < min_inliers or inliers.mean() < min_inlier_share:
        return None
    covariance = _covariance(pixels[inliers], points[inliers], camera, rotation, centre)
    return Registration(rotation, centre, inliers, covariance)


def _errors(
    pixels: Array, points: Array, camera: pycolmap.Camera, rotation: Array, centre: Array
) -> Array:
    """Distances (k,) of projections from their pixels, infinite behind the camera."""
    in_camera = (points - centre) @ rotation.T
    projected = np.asarray(camera.img_from_cam(in_camera), np.float64)
    error = np.linalg.norm(projected - pixels, axis=1)
    return np.where(np.isfinite(error) & (in_camera[:, 2] > 0), error, np.inf)


def _covariance(
    pixels: Array, points: Array, camera: pycolmap.Camera, rotation: Array, centre: Array
) -> Array:
    """The covariance (6, 6) of centre and rotation: s^2 (J^T J)^-1 of the projections' Jacobian J.

    It is taken by central differences, so that it holds for every camera model; s is the robust
    standard deviation of the residuals. Infinite where the correspondences leave a direction open.
    """
    depth = np.median(np.linalg.norm(points - centre, axis=1))
    steps = np.concatenate([np.full(3, 1e-4 * depth), np.full(3, 1e-4)])

    def projected(change: Array) -> Array:
        turn = rotation_matrix(change[3:]) @ rotation
        in_camera = (points - centre - change[:3]) @ turn.T
        return np.asarray(camera.img_from_cam(in_camera), np.float64).ravel()

    jacobian = np.stack(
        [(projected(step) - projected(-step)) / (2 * step.sum()) for step in np.diag(steps)], axis=1
    )
    residual = projected(np.zeros(6)) - pixels.ravel()
    sigma = max(_MAD * float(np.median(np.abs(residual))), _SMALLEST_STEP)
    information = (jacobian * steps).T @ (jacobian * steps)
    values = np.linalg.eigvalsh(information)
    if not values[0] > 1e-12 * values[-1]:
        return np.full((6, 6), np.inf)
    return np.asarray(sigma**2 * np.outer(steps, steps) * np.linalg.inv(information), np.float64)
