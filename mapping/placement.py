"""Calibration of a reconstruction, and its placement by GPS in an east-north-up frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vladmap.features.colmap import pycolmap
from vladmap.mapping.georegister import centres_and_rotations, georegister
from vladmap.mapping.gps import choose_origin, gps_positions
from vladmap.mapping.mapper import (
    bundle_adjust,
    model_score,
)

# A focal length that changes by a larger share under refinement has drifted.
_MAX_FOCAL_CHANGE = 0.1
_MIN_IMAGES_TO_CALIBRATE = 10


def origin_of(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """Return the ENU origin amid the GPS of rows of IMAGES; see `choose_origin`."""
    latitude, longitude, altitude = (
        _column(rows, name) for name in ("latitude", "longitude", "altitude")
    )
    return choose_origin(latitude, longitude, altitude)


def place(
    model: pycolmap.Reconstruction, by_name: Mapping[str, Mapping[str, Any]], gps_sigma_m: float
) -> dict[str, Any]:
    """Transform `model`, in place, to the east-north-up frame at its own origin; return figures.

    `by_name` gives each image name its row of IMAGES. The origin lies amid the GPS positions of the
    model's own images: the vertical of an east-north-up frame is that of its origin, and is off by
    one degree at a distance of 111 km. Without enough GPS the model stays in its own frame, and
    `georegistered` of the figures is false.
    """
    names, centres, rotations = centres_and_rotations(model)
    rows = [by_name[name] for name in names]
    origin = origin_of(rows)
    registration = georegister(centres, rotations, gps_positions(rows, origin, gps_sigma_m))
    if registration is not None:
        model.transform(registration.enu_from_model.to_colmap())
    model.update_point_3d_errors()
    return {
        "images": model.num_reg_images(),
        "points": model.num_points3D(),
        "observations": model.compute_num_observations(),
        "mean_track_length": model.compute_mean_track_length(),
        "reprojection_error_px": model.compute_mean_reprojection_error(),
        "georegistered": registration is not None,
        "origin": list(origin),
        **(registration.quality() if registration is not None else {}),
    }


def calibrate(model: pycolmap.Reconstruction, long_side_px: int) -> pycolmap.Reconstruction:
    """Return `model` after bundle adjustment of intrinsics, poses and points, where that helps.

    The model is returned as it is if it has fewer than ten images, if a focal length changes by
    more than 10 %, or if its score decreases.
    """
    if model.num_reg_images() < _MIN_IMAGES_TO_CALIBRATE:
        return model
    refined = pycolmap.Reconstruction(model)
    bundle_adjust(refined, refine_focal=True, refine_distortion=True)
    for number, camera in model.cameras.items():
        change = refined.camera(number).mean_focal_length() / camera.mean_focal_length() - 1.0
        if not abs(change) <= _MAX_FOCAL_CHANGE:
            return model
    better = model_score(refined, long_side_px) >= model_score(model, long_side_px)
    return refined if better else model


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)
