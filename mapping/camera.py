"""A camera: COLMAP's projection model of the photographs of one lens, with its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vladmap.features.colmap import pycolmap

# COLMAP's 4 pixels, for photographs up to this long side; in proportion above, since features of
# larger photographs are detected on a reduced copy.
MAX_ERROR_PX = 4.0
MAX_ERROR_LONG_SIDE_PX = 1600


@dataclass(frozen=True)
class Camera:
    """Intrinsics of the photographs of one camera.

    `model` is COLMAP's name of the projection model, `width` and `height` are in pixels, `params`
    are the model's parameters in COLMAP's order: the focal length in pixels first, then the
    principal point, then distortion. `has_prior_focal_length` says that the focal length is known,
    not assumed: COLMAP then estimates an essential matrix for pairs of such images.
    """

    model: str
    width: int
    height: int
    params: tuple[float, ...]
    has_prior_focal_length: bool

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Camera:
        """Return the camera of a JSON object that `to_json` made.

        Raises:
            ValueError: a field is missing, or is not of its type.
        """
        try:
            camera = cls(
                str(record["model"]),
                int(record["width"]),
                int(record["height"]),
                tuple(float(value) for value in record["params"]),
                bool(record["has_prior_focal_length"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a camera: {error!r}") from error
        if not camera.params or not all(map(math.isfinite, camera.params)):
            raise ValueError(f"not the parameters of a camera: {camera.params}")
        return camera

    def to_json(self) -> dict[str, Any]:
        """Return the camera as a JSON object."""
        return {
            "model": self.model,
            "width": self.width,
            "height": self.height,
            "params": list(self.params),
            "has_prior_focal_length": self.has_prior_focal_length,
        }

    @classmethod
    def from_colmap(cls, camera: pycolmap.Camera) -> Camera:
        """Return the camera of a COLMAP camera; its id is left out."""
        return cls(
            camera.model_name,
            int(camera.width),
            int(camera.height),
            tuple(float(value) for value in camera.params),
            bool(camera.has_prior_focal_length),
        )

    def to_colmap(self, camera_id: int = 1) -> pycolmap.Camera:
        """Return the COLMAP camera, with an id."""
        return pycolmap.Camera(
            camera_id=camera_id,
            model=self.model,
            width=self.width,
            height=self.height,
            params=list(self.params),
            has_prior_focal_length=self.has_prior_focal_length,
        )

    @property
    def long_side_px(self) -> int:
        """The longer of width and height."""
        return max(self.width, self.height)

    @property
    def focal_px(self) -> float:
        """The focal length in pixels, the horizontal one where the model has two."""
        return self.params[0]

    def with_known_focal_length(self) -> Camera:
        """Return the same camera, its focal length taken as known."""
        return replace(self, has_prior_focal_length=True)


def max_error_px(long_side_px: int) -> float:
    """Return the largest reprojection or epipolar error in pixels that an inlier may have.

    It is 4 pixels in images of up to 1600 pixels and in proportion to the long side above.
    """
    return MAX_ERROR_PX * max(1.0, long_side_px / MAX_ERROR_LONG_SIDE_PX)
