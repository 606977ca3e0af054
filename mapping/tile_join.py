"""Whether two models agree where they overlap, and the joined model where they do.

A join is a hypothesis that common points propose and that common images, GPS and sequences test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vladmap.features.colmap import pycolmap
from vladmap.mapping import reasons as why
from vladmap.mapping.arrays import Array, Bools
from vladmap.mapping.check import best_similarity
from vladmap.mapping.colmap import SEED
from vladmap.mapping.georegister import centres_and_rotations, georegister
from vladmap.mapping.gps import gps_positions
from vladmap.mapping.soundness import remove_images
from vladmap.mapping.tile_model import TileModel, misplaced_in, place_tile
from vladmap.mapping.track_join import common_points, join_models

_MIN_COMMON_POINTS = 30
_MAX_POINTS_DRAWN = 5000
# After the alignment a common image differs if its centres are further apart than so many metres
# (without GPS: than this share of the common images' extent), or its directions than so many
# degrees.
_MAX_SHIFT_M = 1.0
_MAX_SHIFT_SHARE = 0.05
_MAX_TURN_DEG = 3.0
# So large a share of the common images may differ. Each of them is removed from one of the models,
# or from both if neither sees this many times the points of the other.
_MAX_TORN = 0.3
_CLEARLY_MORE = 1.5
# An image that differs by more than so many limits is wrong in one model; one that differs by less
# shows that the models are bent.
_FAR = 4.0
# GPS and sequences may contradict so large a share of a joined model's images that they did not
# contradict before.
_MAX_NEW_MISPLACED = 0.05


@dataclass(frozen=True)
class _Overlap:
    """The common images of two models in one frame.

    `moved` (n,) is the distance of their centres, `turned` (n,) the angle between their directions
    in degrees, `limit` the distance from which on an image differs.
    """

    names: list[str]
    moved: Array
    turned: Array
    limit: float

    def figures(self) -> dict[str, Any]:
        """Return what the report of a merge says of the overlap."""
        return {
            "common_images": len(self.names),
            "residual_median_m": float(np.median(self.moved)),
            "residual_max_m": float(np.max(self.moved)),
            "turn_median_deg": float(np.median(self.turned)),
        }

    def differs(self, times: float = 1.0) -> Bools:
        """Return which common images, (n,), differ by more than so many limits."""
        return np.asarray(
            (self.moved > times * self.limit) | (self.turned > times * _MAX_TURN_DEG), bool
        )

    def objection(self) -> str | None:
        """Return why the models must not be joined; None if few enough images differ."""
        differing, count = self.differs().sum(), len(self.names)
        if differing <= _MAX_TORN * count:
            return None
        return (
            f"{differing} of {count} common images differ: median {np.median(self.moved):.2f} "
            f"(limit {self.limit:.2f}) and {np.median(self.turned):.1f} degrees"
        )


def join_tiles(
    base: TileModel,
    other: TileModel,
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float,
) -> tuple[TileModel | None, dict[str, Any]]:
    """Return `base` joined with `other`, or None where they do not agree, and the decision.

    `by_name` gives each image name its row of IMAGES. The models agree if a similarity aligns their
    common points, if few common images differ under it, and if GPS and sequences do not contradict
    many images of the joined model. The decision is a JSON object with the figures and the reason.
    The joined model is georegistered in the frame of its own origin.
    """
    decision: dict[str, Any] = {"a": base.name, "b": other.name, "merged": False}
    aligned = _aligned(base.model, other.model)
    if isinstance(aligned, str):
        return None, {**decision, "reason": aligned}
    overlap = _overlap(base, aligned)
    decision |= overlap.figures()
    objection = overlap.objection()
    if objection is not None:
        return None, {**decision, "reason": objection}
    settled = pycolmap.Reconstruction(base.model)
    far = overlap.differs(_FAR)
    differing = {overlap.names[row]: bool(far[row]) for row in np.flatnonzero(overlap.differs())}
    dropped = _settle(differing, settled, aligned)
    model = join_models(settled, aligned)
    joined = TileModel(base.name, model, base.origin, base.georegistered)
    joined.dropped = base.dropped | other.dropped | dropped
    joined.parts = base.parts + other.parts
    place_tile(joined, by_name, gps_sigma_m)
    decision |= _residuals_before_and_after(base, joined, set(dropped), by_name, gps_sigma_m)
    # Where GPS shifts two sequences against each other, residuals may grow at their joint. What may
    # not happen is that photographs come to lie elsewhere than GPS and sequences allow.
    misplaced = [misplaced_in(each, by_name, gps_sigma_m) for each in (joined, base, other)]
    new = len(misplaced[0] - misplaced[1] - misplaced[2])
    if new > _MAX_NEW_MISPLACED * model.num_reg_images():
        reason = f"GPS and drives would contradict {new} of {model.num_reg_images()} images"
        return None, {**decision, "reason": reason}
    return joined, {**decision, "merged": True, "reason": "common images and GPS agree"}


def _aligned(
    base: pycolmap.Reconstruction, other: pycolmap.Reconstruction
) -> pycolmap.Reconstruction | str:
    """Return `other` in the frame of `base`, by their common points, or why that cannot be."""
    source, target = common_points(other, base)
    if len(source) < _MIN_COMMON_POINTS:
        return f"{len(source)} common points, {_MIN_COMMON_POINTS} are needed"
    drawn = np.unique(np.linspace(0, len(source) - 1, _MAX_POINTS_DRAWN).astype(np.int64))
    source, target = source[drawn], target[drawn]
    options = pycolmap.RANSACOptions(random_seed=SEED, max_error=_tolerance(target))
    pycolmap.set_random_seed(SEED)
    estimate: Any = pycolmap.estimate_sim3d_robust(source, target, options)
    if estimate is None:
        return "no similarity explains the common points"
    inliers = np.asarray(estimate["inlier_mask"], np.bool_)
    scale, rotation, shift = best_similarity(source[inliers], target[inliers])
    aligned = pycolmap.Reconstruction(other)
    aligned.transform(pycolmap.Sim3d(scale, pycolmap.Rotation3d(rotation), shift))
    return aligned


def _residuals_before_and_after(
    base: TileModel,
    joined: TileModel,
    dropped: set[str],
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float,
) -> dict[str, Any]:
    """Return the median GPS residual of the base's images without and with the other model."""
    before, after = (_gps_residuals(each, by_name, gps_sigma_m) for each in (base, joined))
    own = sorted(set(before) - dropped)
    if not own:
        return {}
    joint = float(np.median([after.get(name, np.inf) for name in own]))
    return {
        "gps_residual_horizontal_before_m": float(np.median([before[name] for name in own])),
        "gps_residual_horizontal_after_m": joint if np.isfinite(joint) else None,
    }


def _settle(
    torn: Mapping[str, bool], base: pycolmap.Reconstruction, other: pycolmap.Reconstruction
) -> dict[str, str]:
    """Remove each image that two models have in different places from one of them, or from both.

    `torn` says of each such image whether its two places are far apart. The image stays in the
    model in which it sees more points. If its places are far apart, one of them is wrong: unless
    one model sees clearly more points, the image is removed from both. Those images are returned,
    with the reason.
    """
    points = [
        {image.name: image.num_points3D for image in model.images.values()}
        for model in (base, other)
    ]
    more = {name: _CLEARLY_MORE if far else 1.0 for name, far in torn.items()}
    ours = [name for name in torn if points[0][name] < more[name] * points[1][name]]
    theirs = [name for name in torn if points[1][name] <= more[name] * points[0][name]]
    remove_images(base, ours)
    remove_images(other, theirs)
    neither = sorted(set(ours) & set(theirs))
    return dict.fromkeys(neither, why.TORN)


def _gps_residuals(
    tile: TileModel, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float
) -> dict[str, float]:
    """Return the horizontal distance in metres of each image from its GPS, by name."""
    if not tile.georegistered:
        return {}
    names, centres, rotations = centres_and_rotations(tile.model)
    gps = gps_positions([by_name[name] for name in names], tile.origin, gps_sigma_m)
    registration = georegister(centres, rotations, gps)
    if registration is None:
        return {}
    known = zip(names, registration.horizontal.tolist(), strict=True)
    return {name: residual for name, residual in known if np.isfinite(residual)}


def _tolerance(points: Array) -> float:
    """Return a hundredth of the points' interquartile range: half a metre for fifty metres."""
    spread = np.quantile(points, 0.75, axis=0) - np.quantile(points, 0.25, axis=0)
    return max(1e-6, 0.01 * float(np.linalg.norm(spread)))


def _overlap(base: TileModel, other: pycolmap.Reconstruction) -> _Overlap:
    """Return how the common images of two models differ that are in one frame."""
    names_a, centres_a, rotations_a = centres_and_rotations(base.model)
    names_b, centres_b, rotations_b = centres_and_rotations(other)
    row_of_a = {name: row for row, name in enumerate(names_a)}
    row_of_b = {name: row for row, name in enumerate(names_b)}
    common = sorted(set(names_a) & set(names_b))
    rows_a = [row_of_a[name] for name in common]
    rows_b = [row_of_b[name] for name in common]
    distance = np.linalg.norm(centres_a[rows_a] - centres_b[rows_b], axis=1)
    relative = rotations_a[rows_a].transpose(0, 2, 1) @ rotations_b[rows_b]
    cosine = np.clip((np.trace(relative, axis1=1, axis2=2) - 1) / 2, -1, 1)
    extent = float(np.linalg.norm(np.ptp(centres_a[rows_a], axis=0)))
    limit = _MAX_SHIFT_M if base.georegistered else _MAX_SHIFT_SHARE * extent
    return _Overlap(common, distance, np.degrees(np.arccos(cosine)), limit)
