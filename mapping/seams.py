"""The adjustment of a merged model along the seams of its tiles, by all points; all else stays.

What a merge changes most are images that several tiles hold, and what these see together with their
neighbours. Work and memory grow with the seams, not with the map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Bools, Indices
from vladmap.mapping.graph import connected_components
from vladmap.mapping.mapper import adjustment_options
from vladmap.mapping.track_join import Tracks, off_by

# A neighbour of the seams sees so many points that images of the seams see.
_COVISIBLE_POINTS = 15
_MAX_ITERATIONS = 10


@dataclass(frozen=True)
class Seams:
    """What is adjusted: images by COLMAP id, and points by id, each with the number of its block.

    Blocks have no point and no image in common. `loose` says of each block that no other image of
    the model sees its points: nothing but its own images holds it in place.
    """

    images: Indices
    image_block: Indices
    points: Indices
    point_block: Indices
    loose: Bools

    def figures(self) -> dict[str, int]:
        """Return how much is free in all, and at once at most."""
        in_block = np.bincount(self.image_block)
        return {
            "free_images": len(self.images),
            "free_points": len(self.points),
            "blocks": int((in_block > 0).sum()),
            "images_in_largest_block": int(in_block.max(initial=0)),
        }


def find_seams(shared: Indices, ids: Indices, tracks: Tracks) -> Seams:
    """Return what to adjust of a model.

    `shared` are the COLMAP ids of the images that several tiles hold, `ids` (k,) those of the
    images of the tracks' observations. Free are these images, those that see points with them, and
    the points that any of these sees.
    """
    size = 1 + max(int(shared.max(initial=0)), int(ids.max(initial=0)))
    on_seam = np.zeros(len(tracks.places), bool)
    on_seam[tracks.point[np.isin(ids, shared)]] = True
    beside = np.bincount(ids, on_seam[tracks.point], size) >= _COVISIBLE_POINTS
    beside[shared] = True
    images = np.flatnonzero(beside)
    seen = beside[ids]
    points = np.unique(tracks.point[seen])
    label = connected_components(size + len(tracks.places), ids[seen], size + tracks.point[seen])
    nodes = label[np.concatenate([images, size + points])]
    names, block = np.unique(nodes, return_inverse=True)
    of_images, of_points = block[: len(images)], block[len(images) :]
    block_of = np.full(len(tracks.places), -1)
    block_of[points] = of_points
    others = block_of[tracks.point[~seen]]
    held = np.zeros(len(names), bool)
    held[others[others >= 0]] = True
    return Seams(images, of_images, 1 + points, of_points, ~held)


def adjust_seams(model: pycolmap.Reconstruction, seams: Seams) -> None:
    """Refine the free images and points of `model` in place, a block at a time.

    Other images that see free points hold them where they are. Intrinsics are constant.
    """
    options = adjustment_options(refine_focal=False, refine_distortion=False)
    options.ceres.solver_options.max_num_iterations = _MAX_ITERATIONS
    for block, loose in enumerate(seams.loose.tolist()):
        config = pycolmap.BundleAdjustmentConfig()
        images = seams.images[seams.image_block == block].tolist()
        for number in images:
            config.add_image(number)
        for number in seams.points[seams.point_block == block].tolist():
            config.add_variable_point(number)
        if loose:
            config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    model.update_point_3d_errors()


def remove_misfits(model: pycolmap.Reconstruction, ids: Indices, tracks: Tracks) -> int:
    """Remove, in place, the observations that lie over the usual bound off; return how many.

    `tracks` are those of the model, `ids` (k,) its images.
    """
    places = np.array(
        [model.point3D(number).xyz for number in range(1, 1 + len(tracks.places))]
    ).reshape(-1, 3)
    off = off_by(model, ids, tracks.keypoint, places[tracks.point], 1.0)
    for number, index in zip(ids[off].tolist(), tracks.keypoint[off].tolist(), strict=True):
        # With its last but one observation, a point is gone, and the last one with it.
        if model.image(number).points2D[index].has_point3D():
            model.delete_observation(number, index)
    return int(off.sum())
