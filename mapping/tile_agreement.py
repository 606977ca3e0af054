"""Whether two tiles agree: a hypothesis of common points, tested by common images and by GPS.

Tiles share local features: an image has the same keypoints in each, so that two tracks that share
a keypoint show the same point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.check import best_similarity
from vladmap.mapping.colmap import SEED
from vladmap.mapping.georegister import Similarity
from vladmap.mapping.gps_fit import GpsFit, fit_to_gps, newly_misplaced
from vladmap.mapping.image_poses import MAX_TURN_DEG, candidates_of, settle
from vladmap.mapping.rotations import turns_deg
from vladmap.mapping.tile_arrays import TileArrays, common_points
from vladmap.mapping.tile_model import TileModel

MAX_SHIFT_M = 1.0
"""In metres, a common image differs if the tiles have its centre further apart."""
MAX_TORN = 0.3
"""So large a share of the common images of tiles that agree may differ."""
_MIN_COMMON_IMAGES = 3
_MIN_COMMON_POINTS = 30
_MAX_POINTS_DRAWN = 5000
# Where the frame is not in metres, MAX_SHIFT_M is this share of the common images' extent.
_MAX_SHIFT_SHARE = 0.05
# A tile is aligned with others by so many of the points of each pair.
_POINTS_KEPT = 100

_APART = Similarity(1.0, np.eye(3), np.zeros(3))


@dataclass(frozen=True)
class Part:
    """A tile to be merged: its model, the same as arrays, and what GPS says of it alone."""

    tile: TileModel
    arrays: TileArrays
    gps: GpsFit


@dataclass(frozen=True)
class Overlap:
    """The common images of two tiles in one frame.

    `image` (n,) are their numbers, `moved` (n,) is the distance of their centres, `turned` (n,) the
    angle between their directions in degrees, `limit` the distance from which on an image differs.
    """

    image: Indices
    moved: Array
    turned: Array
    limit: float

    def figures(self) -> dict[str, Any]:
        """Return what the report of a merge says of the overlap."""
        return {
            "common_images": len(self.image),
            "residual_median_m": float(np.median(self.moved)),
            "residual_max_m": float(np.max(self.moved)),
            "turn_median_deg": float(np.median(self.turned)),
        }

    def differs(self) -> Bools:
        """Return which common images, (n,), differ."""
        return np.asarray((self.moved > self.limit) | (self.turned > MAX_TURN_DEG), bool)

    def objection(self) -> str | None:
        """Return why the tiles must not be joined; None if few enough images differ."""
        differing, count = self.differs().sum(), len(self.image)
        if differing <= MAX_TORN * count:
            return None
        return (
            f"{differing} of {count} common images differ: median {np.median(self.moved):.2f} "
            f"(limit {self.limit:.2f}) and {np.median(self.turned):.1f} degrees"
        )


@dataclass(frozen=True)
class Shared:
    """What two parts that agree share; `similarity` carries the second into the frame of the first.

    `images` are the numbers of the common images that do not differ, `points_a` and `points_b`
    (m, 3) common points in either frame, `sigma` how far apart these are in the frame of the first,
    `limit` that of the overlap.
    """

    similarity: Similarity
    images: Indices
    points_a: Array
    points_b: Array
    sigma: float
    limit: float


@dataclass(frozen=True)
class Agreement:
    """What was found of two parts, by their numbers, `a` the larger one.

    `decision` is the JSON object of the report; `shared` is None where the parts do not agree.
    """

    a: int
    b: int
    decision: dict[str, Any]
    shared: Shared | None = None


def compare_all(
    parts: Sequence[Part],
    names: Sequence[str],
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float,
) -> list[Agreement]:
    """Return what is found of all two parts that share three images or more, in their order.

    `names` gives each image number its name, `by_name` each name its row of IMAGES. Two parts agree
    if a similarity aligns their common points, if few common images differ under it, and if GPS and
    sequences do not contradict many images of the two together.
    """
    held = sparse.csr_array(
        (
            np.ones(sum(len(part.arrays.image) for part in parts), np.int64),
            np.concatenate([np.zeros(0, np.int64), *(part.arrays.image for part in parts)]),
            np.cumsum([0, *(len(part.arrays.image) for part in parts)]),
        ),
        shape=(len(parts), len(names)),
    )
    shared = sparse.triu(held @ held.T, 1).tocoo()
    enough = shared.data >= _MIN_COMMON_IMAGES
    pairs = sorted(zip(shared.row[enough].tolist(), shared.col[enough].tolist(), strict=True))
    return [_compare(parts, a, b, names, by_name, gps_sigma_m) for a, b in pairs]


def overlap_of(
    ours: TileArrays, theirs: TileArrays, to_ours: Similarity, to_theirs: Similarity, limit: float
) -> Overlap:
    """Return how the common images of two tiles differ in a common frame.

    `limit` is that of Overlap; infinite: a share of the extent of the common images.
    """
    common = np.intersect1d(ours.image, theirs.image)
    rows, others = ours.rows_of(common), theirs.rows_of(common)
    centres = to_ours.apply(ours.centres[rows])
    moved = np.linalg.norm(centres - to_theirs.apply(theirs.centres[others]), axis=1)
    turned = turns_deg(
        to_ours.rotation @ ours.rotations[rows], to_theirs.rotation @ theirs.rotations[others]
    )
    if not np.isfinite(limit):
        limit = _MAX_SHIFT_SHARE * float(np.linalg.norm(np.ptp(centres, axis=0)))
    return Overlap(common, moved, turned, limit)


def _compare(
    parts: Sequence[Part],
    a: int,
    b: int,
    names: Sequence[str],
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float,
) -> Agreement:
    """Return what is found of two parts; `a` and `b` are their numbers."""
    base, other = parts[a], parts[b]
    decision: dict[str, Any] = {"a": base.tile.name, "b": other.tile.name, "merged": False}
    source, target = common_points(other.arrays, base.arrays)
    if len(source) < _MIN_COMMON_POINTS:
        reason = f"{len(source)} common points, {_MIN_COMMON_POINTS} are needed"
        return Agreement(a, b, {**decision, "reason": reason})
    fit = _similarity_of(source, target)
    if fit is None:
        reason = "no similarity explains the common points"
        return Agreement(a, b, {**decision, "reason": reason})
    similarity, inliers = fit
    limit = MAX_SHIFT_M if base.tile.georegistered else np.inf
    overlap = overlap_of(base.arrays, other.arrays, _APART, similarity, limit)
    decision |= overlap.figures()
    objection = overlap.objection()
    if objection is not None:
        return Agreement(a, b, {**decision, "reason": objection})
    poses = settle(candidates_of([base.arrays, other.arrays], [_APART, similarity]), overlap.limit)
    held = [names[number] for number in poses.image.tolist()]
    joint = fit_to_gps(held, poses.centres, poses.rotations, by_name, gps_sigma_m)
    torn = {names[number] for number in poses.torn.tolist()}
    decision |= _residuals_before_and_after(base.gps, joint, torn)
    new = newly_misplaced(joint, [base.gps, other.gps], len(held))
    if new:
        reason = f"GPS and drives would contradict {len(new)} of {len(held)} images"
        return Agreement(a, b, {**decision, "reason": reason})
    kept = inliers[np.unique(np.linspace(0, len(inliers) - 1, _POINTS_KEPT).astype(np.int64))]
    apart = np.linalg.norm(similarity.apply(source[inliers]) - target[inliers], axis=1)
    shared = Shared(
        similarity,
        overlap.image[~overlap.differs()],
        target[kept],
        source[kept],
        float(np.median(apart)),
        overlap.limit,
    )
    decision |= {"merged": True, "reason": "common images and GPS agree"}
    return Agreement(a, b, decision, shared)


def _similarity_of(source: Array, target: Array) -> tuple[Similarity, Indices] | None:
    """Return the similarity from source to target that most points bear out, and which do."""
    drawn = np.unique(np.linspace(0, len(source) - 1, _MAX_POINTS_DRAWN).astype(np.int64))
    options = pycolmap.RANSACOptions(random_seed=SEED, max_error=_tolerance(target[drawn]))
    pycolmap.set_random_seed(SEED)
    estimate: Any = pycolmap.estimate_sim3d_robust(source[drawn], target[drawn], options)
    if estimate is None:
        return None
    inliers = drawn[np.asarray(estimate["inlier_mask"], np.bool_)]
    return Similarity(*best_similarity(source[inliers], target[inliers])), inliers


def _tolerance(points: Array) -> float:
    """Return a hundredth of the points' interquartile range: half a metre for fifty metres."""
    spread = np.quantile(points, 0.75, axis=0) - np.quantile(points, 0.25, axis=0)
    return max(1e-6, 0.01 * float(np.linalg.norm(spread)))


def _residuals_before_and_after(before: GpsFit, after: GpsFit, torn: set[str]) -> dict[str, Any]:
    """Return the median GPS residual of a part's images without and with the other part."""
    own = sorted(set(before.residuals) - torn)
    if not own:
        return {}
    joint = float(np.median([after.residuals.get(name, np.inf) for name in own]))
    return {
        "gps_residual_horizontal_before_m": float(
            np.median([before.residuals[name] for name in own])
        ),
        "gps_residual_horizontal_after_m": joint if np.isfinite(joint) else None,
    }
