"""The adjustment of a merged model by some of its points: all images, a bounded sample for each.

A similarity a tile cannot unbend tiles that are bent where they end: the images in between have to
give way. With all images between the seams held fast, a map of three tiles stayed at 0.20 m from
the truth, at 0.05 m with all of them free. Work and memory are linear in the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.colmap import SEED
from vladmap.mapping.georegister import centres_and_rotations
from vladmap.mapping.image_poses import SettledPoses
from vladmap.mapping.mapper import adjustment_options
from vladmap.mapping.track_join import Tracks, build_model

POINTS_PER_IMAGE = 500
"""So many points of each image are used, and those that other images chose."""
# The start is good, and most of the gain is in the first steps.
_MAX_ITERATIONS = 10


def unbent(
    models: Sequence[pycolmap.Reconstruction],
    poses: SettledPoses,
    names: Sequence[str],
    tracks: Tracks,
) -> tuple[SettledPoses, Tracks]:
    """Return the poses after an adjustment of all images by some points, all points moved along.

    The arguments are those of `build_model`.
    """
    model, _ = build_model(models, poses, names, tracks.without(~skeleton(tracks)))
    options = adjustment_options(refine_focal=False, refine_distortion=False)
    options.ceres.solver_options.max_num_iterations = _MAX_ITERATIONS
    config = pycolmap.BundleAdjustmentConfig()
    for number in sorted(model.reg_image_ids()):
        config.add_image(number)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    _, centres, rotations = centres_and_rotations(model)
    moved = replace(poses, centres=centres, rotations=rotations)
    return moved, replace(tracks, places=_carried(tracks, poses, moved))


def skeleton(tracks: Tracks) -> Bools:
    """Return which observations, (k,), are of points that an image has in its sample.

    All images draw by the same random order of the points, so that they choose the same ones. The
    longest tracks alone, or those that tiles share, hold the tiles less well.
    """
    rank = np.random.default_rng(SEED).permutation(len(tracks.places))
    order = np.lexsort((rank[tracks.point], tracks.image))
    image = tracks.image[order]
    drawn = np.arange(len(order)) - np.searchsorted(image, image) < POINTS_PER_IMAGE
    chosen = np.zeros(len(tracks.places), bool)
    chosen[tracks.point[order[drawn]]] = True
    return np.asarray(chosen[tracks.point], bool)


def _carried(tracks: Tracks, before: SettledPoses, after: SettledPoses) -> Array:
    """Return the points (p, 3), each carried by the mean motion of the images that see it."""
    row: Indices = np.searchsorted(before.image, tracks.image)
    turn = after.rotations @ before.rotations.transpose(0, 2, 1)
    away = tracks.places[tracks.point] - before.centres[row]
    place = after.centres[row] + np.einsum("kij,kj->ki", turn[row], away)
    count = np.bincount(tracks.point, minlength=len(tracks.places))
    sums = [np.bincount(tracks.point, axis, len(tracks.places)) for axis in place.T]
    return np.stack(sums, axis=1) / count[:, None]
