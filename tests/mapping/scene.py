"""A street photographed by a known camera, as local features and as tables of an atlas.

Nothing is rendered: keypoints are projections of known points with half a pixel of noise, and each
point has a descriptor of its own. The photographs are taken where those of
tests/mapping/test_tile_merge.py are, and look 35 degrees aside: COLMAP begins no map with two
photographs of which one lies straight ahead of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from tests.mapping.test_tile_merge import FOCAL, HEIGHT, IMAGES, ORIGIN, WIDTH, name_of, street
from vladmap.features.base import LocalFeatures
from vladmap.geodesy.wgs84 import enu_to_geodetic
from vladmap.mapping.camera import Camera
from vladmap.mapping.two_view import TwoView, verify
from vladmap.schemas import tables

CAMERA = Camera("SIMPLE_PINHOLE", WIDTH, HEIGHT, (FOCAL, WIDTH / 2, HEIGHT / 2), True)

_SIN, _COS = np.sin(np.radians(35.0)), np.cos(np.radians(35.0))
_ASIDE = np.array([[_COS, 0.0, _SIN], [0.0, 1.0, 0.0], [-_SIN, 0.0, _COS]])


def id_of(number: int) -> str:
    return f"id{number:03d}"


@cache
def _seen() -> tuple[dict[str, LocalFeatures], dict[str, np.ndarray]]:
    """Features of each photograph, and the point that each of its keypoints shows."""
    centres, ahead, points = street()
    rotations = ahead @ _ASIDE
    rng = np.random.default_rng(7)
    descriptors = rng.integers(0, 70, (len(points), 128), dtype=np.uint8)
    features, shown = {}, {}
    for number in range(IMAGES):
        local = (points - centres[number]) @ rotations[number]
        with np.errstate(divide="ignore", invalid="ignore"):
            pixel = FOCAL * local[:, :2] / local[:, 2:] + [WIDTH / 2, HEIGHT / 2]
        inside = (pixel >= 0).all(axis=1) & (pixel < [WIDTH, HEIGHT]).all(axis=1)
        visible = np.flatnonzero((local[:, 2] > 2) & (local[:, 2] < 60) & inside)
        keypoints = np.zeros((len(visible), 4), np.float32)
        keypoints[:, :2] = pixel[visible] + rng.normal(0, 0.5, (len(visible), 2))
        keypoints[:, 2] = 1.0
        features[id_of(number)] = LocalFeatures(keypoints, descriptors[visible])
        shown[id_of(number)] = visible
    return features, shown


def features_of(numbers: Sequence[int]) -> dict[str, LocalFeatures]:
    """Local features by image_id."""
    return {id_of(number): _seen()[0][id_of(number)] for number in numbers}


@cache
def _view(a: str, b: str) -> TwoView:
    features, shown = _seen()
    _, at, to = np.intersect1d(shown[a], shown[b], return_indices=True)
    matches = np.stack([at, to], axis=1).astype(np.uint32)
    return verify(a, b, features[a], features[b], matches, CAMERA, CAMERA)


def views_of(numbers: Sequence[int], reach: int = 6) -> list[TwoView]:
    """Verified true matches of photographs at most `reach` places apart."""
    pairs = [(a, b) for a in numbers for b in numbers if a < b <= a + reach]
    views = [_view(id_of(a), id_of(b)) for a, b in pairs]
    return [view for view in views if view.verified]


def images_of(numbers: Sequence[int], sigma_m: float = 0.5, **given: Any) -> pa.Table:
    """Rows of IMAGES, their GPS with noise; `uri` is the name, as COLMAP's models have it."""
    noise = np.random.default_rng(2).normal(0, sigma_m, (IMAGES, 3))
    geodetic = enu_to_geodetic(street()[0] + noise, ORIGIN).tolist()
    rows = [
        {
            **dict.fromkeys(tables.IMAGES.names),
            "image_id": id_of(number), "name": name_of(number), "uri": name_of(number),
            "content_hash": name_of(number), "width": WIDTH, "height": HEIGHT,
            "focal_px": FOCAL, "sharpness": 1.0, "projection": "perspective", "cell": "none",
            "latitude": geodetic[number][0], "longitude": geodetic[number][1],
            "altitude": geodetic[number][2], "gps_accuracy_m": 1.0,
            "sequence_id": "drive", "sequence_index": number, **given,
        }
        for number in numbers
    ]  # fmt: skip
    names = [name for name in tables.IMAGES.names if name != "bbox"]
    schema = pa.schema([tables.IMAGES.field(name) for name in names])
    return pa.Table.from_pylist([{name: row[name] for name in names} for row in rows], schema)
