"""The files of hloc (Hierarchical-Localization, Sarlin et al., CVPR 2019), as hloc 1.5 reads them.

They are HDF5. Features have a group for each image, whose name has a group within a group for each
`/`: `keypoints` (N, 2) with the origin at the centre of the upper-left pixel, `descriptors` (D, N),
and `image_size`. Matches have a group for each pair, `A/B`, with `-` for each `/` of a name:
`matches0` (N,) has for each keypoint of A that of B, or -1.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from vladmap.features.base import LocalFeatures, Matches
from vladmap.mapping.camera import Camera
from vladmap.schemas.rejects import UserError

# COLMAP's origin is the corner of the upper-left pixel; hloc adds this to what it reads.
_CENTRE = np.float32(0.5)
_DETECTION_NOISE_PX = 1.0
_LARGEST = np.iinfo(np.int16).max


def pair_key(first: str, second: str) -> str:
    """The name of the group of a pair."""
    return "/".join(name.replace("/", "-") for name in (first, second))


def require_distinct(names: Iterable[str]) -> None:
    """Raises UserError where two names have one key, such as a/b.jpg and a-b.jpg."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.replace("/", "-"), name)
        if other != name:
            raise UserError(
                f"hloc's files of matches do not tell {other} from {name}: rename one of them"
            )


def write_features(
    file: h5py.File, name: str, features: LocalFeatures, size: tuple[int, int]
) -> None:
    """Write the local features of an image of this `size` (width, height).

    Keypoints are float32: float16, hloc's default, has steps of 1 px above 1024. Descriptors are
    unit vectors in float16, as hloc writes them: its nearest neighbours compare by products, and
    SIFT in an atlas is bytes. `scales` are in pixels, `oris` in degrees, as its SIFT has them. It
    has `scores` too, which the atlas does not: they are 0, as those of its SIFT are.
    """
    group = file.create_group(name)
    points = features.keypoints
    keypoints = group.create_dataset("keypoints", data=points[:, :2] - _CENTRE)
    keypoints.attrs["uncertainty"] = _DETECTION_NOISE_PX
    group["scales"] = points[:, 2]
    group["oris"] = np.rad2deg(points[:, 3])
    group["scores"] = np.zeros(len(points), np.float32)
    group["descriptors"] = unit_rows(features.descriptors).T.astype(np.float16)
    group["image_size"] = np.array(size, np.int64)


def unit_rows(vectors: NDArray[np.generic]) -> NDArray[np.float32]:
    """(N, D) float32 of unit L2 norm; rows of zeros stay."""
    values = vectors.astype(np.float32)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, length, out=values, where=length > 0)


def write_global(file: h5py.File, name: str, vector: NDArray[np.float32]) -> None:
    """Write the global descriptor (D,) of an image."""
    file.create_group(name)["global_descriptor"] = vector


def write_matches(
    file: h5py.File,
    first: str,
    second: str,
    matches: Matches,
    scores: NDArray[np.floating],
    counts: tuple[int, int],
) -> None:
    """Write the matches (m, 2) of two images that have `counts` keypoints, one to one.

    They are int16, as hloc's, where the second image has no more keypoints than that holds, else
    int32. `scores` (m,) lie within 0 and 1; a keypoint without a match has 0.
    """
    kind = np.int16 if counts[1] <= _LARGEST else np.int32
    partner = np.full(counts[0], -1, kind)
    score = np.zeros(counts[0], np.float16)
    partner[matches[:, 0]] = matches[:, 1]
    score[matches[:, 0]] = scores
    group = file.create_group(pair_key(first, second))
    group["matches0"], group["matching_scores0"] = partner, score


def camera_line(name: str, camera: Camera) -> str:
    """The line of an image in a list with intrinsics: name, COLMAP's model, size, parameters."""
    values = " ".join(f"{value:.17g}" for value in camera.params)
    return f"{name} {camera.model} {camera.width} {camera.height} {values}"


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a list of images or pairs."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
