"""What a photograph whose place is asked for gives by itself, in whatever process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vladmap.atlas.extracting import extractor
from vladmap.atlas.photographs import Target, photo_bytes
from vladmap.features.base import LocalFeatures
from vladmap.photos.decoding.bounds import MAX_PIXELS
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.headers.rows import header_row, require_file
from vladmap.photos.ids import image_id
from vladmap.schemas.rejects import PhotoError


@dataclass(frozen=True)
class Asked:
    """A photograph to be placed: its name among the queries, and where it is read.

    `overrides` is the JSON of what a manifest says of it, `kind` what a listing found it to be.
    """

    name: str
    uri: str
    overrides: str | None = None
    kind: str = "file"

    @property
    def names(self) -> dict[str, str]:
        """The columns of its row that say which photograph it is."""
        return {"image_id": image_id(self.name), "name": self.name, "uri": self.uri}


@dataclass(frozen=True)
class Prepared:
    """What was read of a photograph, or why it cannot be used.

    `facts` has the columns of `images/` that its header gives; `pixels` (H, W, 3) uint8 upright RGB
    are of the size that the model describes; `features` are of the full size, None where it shows
    none.
    """

    names: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    pixels: NDArray[np.uint8] | None = None
    features: LocalFeatures | None = None
    error: PhotoError | None = None


def prepare(asked: Asked, target: Target, detector: str | None, device: str = "cpu") -> Prepared:
    """Read, check and decode a photograph, and extract its features by `detector`, if any."""
    try:
        require_file(asked.kind)
        data = photo_bytes(asked.uri, MAX_PIXELS)
        facts = header_row(data, asked.overrides, MAX_PIXELS)
        small = decode_rgb(data, max_pixels=MAX_PIXELS, target=target)
        features = None
        if detector is not None:
            features = features_of(decode_rgb(data, max_pixels=MAX_PIXELS), detector, device)
    except PhotoError as error:
        return Prepared(asked.names, error=error)
    return Prepared(asked.names, facts, small, features)


def features_of(
    pixels: NDArray[np.uint8], detector: str, device: str = "cpu"
) -> LocalFeatures | None:
    """The features of an (H, W, 3) uint8 upright RGB picture; None where it shows none."""
    found = extractor(detector, device).extract(pixels)
    return found if len(found) else None
