"""Where a camera was, from keypoints of its photograph that show known points of a map.

The pose is COLMAP's: P3P in LO-RANSAC, or P4Pf where the focal length is not known, then a robust
refinement (Schoenberger and Frahm, Structure-from-Motion Revisited, CVPR 2016). Its covariance is
computed here, in the map's axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Array, Bools
from vladmap.mapping.camera import Camera, max_error_px
from vladmap.mapping.colmap import SEED, rotation_of, wxyz
from vladmap.mapping.rotations import rotation_matrix

OF_ANOTHER_DAY = 3.0
"""How many times as far off as in a map a keypoint of a photograph of another day may be."""
_FEWEST = 6
# The focal length is let free only between these, over the long side: fields of view of some 20 to
# 130 degrees. Beyond, the points do not hold it.
_FOCAL_BOUNDS = (0.23, 3.0)
_STEP = 1e-6
# The scale of Cauchy's loss in the refinement, over what a keypoint may be off.
_CAUCHY_SHARE = 0.25
# COLMAP's own ends the refinement early where residuals are large.
_GRADIENT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class AbsolutePose:
    """A camera's pose in a map: x_camera = R x_map + t.

    `quaternion` (4,) is R as w, x, y, z with w >= 0, `translation` (3,) is t. `inliers` (m,) are
    the correspondences that it explains, `camera` is the camera with its focal length where that
    was estimated, `error_px` the median reprojection error of the inliers. `covariance` (6, 6) is
    of the projection centre, in the map's units, and of a small turn about the map's axes, in
    radians; it tells what noise of the keypoints does, and nothing of the map's own error.
    """

    quaternion: Array
    translation: Array
    inliers: Bools
    camera: Camera
    error_px: float
    covariance: Array

    @property
    def rotation(self) -> Array:
        """R, (3, 3)."""
        return np.asarray(rotation_of(self.quaternion).matrix())

    @property
    def centre(self) -> Array:
        """The projection centre in the map, (3,)."""
        return -self.rotation.T @ self.translation

    def project(self, points: Array) -> tuple[Array, Array]:
        """Pixels (m, 2) and depths (m,) of points (m, 3) of the map; NaN behind the camera."""
        return _project(self.camera.to_colmap(), self.rotation, self.translation, points)


def absolute_pose(
    keypoints: ArrayLike,
    points: ArrayLike,
    camera: Camera,
    *,
    focal_known: bool = True,
    tolerance: float = OF_ANOTHER_DAY,
) -> AbsolutePose | None:
    """The pose from m correspondences, or None where there is none.

    `keypoints` (m, 2) are pixels with COLMAP's origin, `points` (m, 3) the points of the map that
    they may show; any share of them may be wrong, and both may occur several times. An inlier is
    off by `tolerance` times mapping.camera.max_error_px at most. Where the focal length is not
    known it is estimated, and a pose with one out of all proportion is none. The same arguments
    give the same pose.
    """
    seen = np.ascontiguousarray(keypoints, np.float64).reshape(-1, 2)
    places = np.ascontiguousarray(points, np.float64).reshape(-1, 3)
    if len(seen) < _FEWEST:
        return None
    threshold = tolerance * max_error_px(camera.long_side_px)
    cauchy = _CAUCHY_SHARE * max_error_px(camera.long_side_px)
    estimation = pycolmap.AbsolutePoseEstimationOptions(estimate_focal_length=not focal_known)
    estimation.ransac.max_error = threshold
    estimation.ransac.random_seed = SEED
    refinement = pycolmap.AbsolutePoseRefinementOptions(
        refine_focal_length=not focal_known,
        loss_function_scale=cauchy,
        gradient_tolerance=_GRADIENT_TOLERANCE,
    )
    # COLMAP draws its samples from a generator of each thread: seed the one of this thread.
    pycolmap.set_random_seed(SEED)
    refined = camera.to_colmap()
    found = pycolmap.estimate_and_refine_absolute_pose(
        seen, places, refined, estimation, refinement
    )
    if found is None:
        return None
    pose = found["cam_from_world"]
    rotation, translation = np.asarray(pose.rotation.matrix()), np.asarray(pose.translation)
    lens = Camera.from_colmap(refined)
    if not _possible(lens, rotation, translation, focal_known):
        return None
    pixels, _ = _project(refined, rotation, translation, places)
    errors = np.linalg.norm(pixels - seen, axis=1)
    inliers = np.nan_to_num(errors, nan=np.inf) <= threshold
    if inliers.sum() < _FEWEST:
        return None
    covariance = _noise(errors[inliers], cauchy, 6 + (not focal_known)) * _inverse_normal(
        refined, rotation, translation, places[inliers], focal_free=not focal_known
    )
    error = float(np.median(errors[inliers]))
    return AbsolutePose(wxyz(pose.rotation), translation, inliers, lens, error, covariance)


def _possible(camera: Camera, rotation: Array, translation: Array, focal_known: bool) -> bool:
    low, high = (factor * camera.long_side_px for factor in _FOCAL_BOUNDS)
    finite = np.isfinite(rotation).all() and np.isfinite(translation).all()
    return bool(finite) and (focal_known or low <= camera.focal_px <= high)


def _project(
    camera: pycolmap.Camera, rotation: Array, translation: Array, points: Array
) -> tuple[Array, Array]:
    inside = points @ rotation.T + translation
    pixels = np.full((len(points), 2), np.nan)
    ahead = inside[:, 2] > 0
    if ahead.any():
        pixels[ahead] = camera.img_from_cam(inside[ahead])
    return pixels, inside[:, 2]


def _noise(errors: Array, cauchy: float, unknowns: int) -> float:
    """The variance, in pixels squared, that carries the inverse normal equations to a covariance.

    The refinement minimises Cauchy's loss, which gives large residuals less say: the estimate is a
    little less exact than the best for normal noise, and holds for any (Huber, Robust Statistics,
    1981, section 6.3; for isotropic residuals of these lengths, (m,)).
    """
    weights = 1.0 / (1.0 + (errors / cauchy) ** 2)
    spread = 0.5 * np.mean((weights * errors) ** 2) / np.mean(weights**2) ** 2
    numbers = 2 * len(errors)
    return float(spread * numbers / max(1, numbers - unknowns))


def _inverse_normal(
    camera: pycolmap.Camera,
    rotation: Array,
    translation: Array,
    points: Array,
    *,
    focal_free: bool,
) -> Array:
    """(6, 6): the inverse of the normal equations of the centre and of a small turn, in pixels.

    The derivatives are taken numerically, by central differences, for any lens. A focal length that
    was estimated takes part, and is eliminated.
    """
    centre = -rotation.T @ translation
    unit = max(1e-9, float(np.median(np.linalg.norm(points - centre, axis=1))))
    steps = np.array([unit] * 3 + [1.0] * 3) * _STEP

    def derivative(step: Array) -> Array:
        """Of all pixels by the one number that `step` changes, (2m,)."""
        ahead, back = (
            _moved(camera, rotation, centre, points, sign * step) for sign in (1.0, -1.0)
        )
        return ((ahead - back) / (2 * step.sum())).ravel()

    columns = [derivative(step) for step in np.diag(steps)]
    if focal_free:
        pixels, _ = _project(camera, rotation, translation, points)
        principal = np.array([camera.principal_point_x, camera.principal_point_y])
        columns.append(((pixels - principal) / camera.params[0]).ravel())
    derivatives = np.stack(columns, axis=1)
    derivatives = derivatives[np.isfinite(derivatives).all(axis=1)]
    # In units of the scene, so that the equations are well conditioned.
    scale = np.array([unit] * 3 + [1.0] * 3 + [camera.params[0]] * focal_free)
    scaled = derivatives * scale
    inverse = np.linalg.pinv(scaled.T @ scaled, hermitian=True)
    return np.asarray((inverse * np.outer(scale, scale))[:6, :6])


def _moved(
    camera: pycolmap.Camera, rotation: Array, centre: Array, points: Array, step: Array
) -> Array:
    """Pixels of the points from a camera moved by step[:3] and turned by step[3:] in the map."""
    turned = rotation @ rotation_matrix(step[3:]).T
    return _project(camera, turned, -turned @ (centre + step[:3]), points)[0]
