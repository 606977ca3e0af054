"""Pairs of photographs of two drives, tried again by local features of a second kind.

In another season or light SIFT finds too little of a place again. A learned detector, matched by
its network, finds more of it, less exactly. The keypoints of the second kind stand behind those of
the first in one list: an image with n keypoints of the first kind has row k of the second at n + k,
so that one COLMAP database holds both, as different points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vladmap.features.base import FeatureKind, LocalFeatures, Matcher
from vladmap.mapping.camera import Camera
from vladmap.mapping.two_view import TwoView, verify

_MOST_FEATURES = 1024
# A network finds matches in any two streets: of photographs of rendered cities that share nothing,
# LighterGlue's matches were nearly all "verified" with 15 inliers and a share of 0.4.
_MIN_INLIERS = 100
_MIN_INLIER_SHARE = 0.85


@dataclass(frozen=True)
class SecondKind:
    """Features of the second kind, and the network that matches them."""

    kind: FeatureKind
    matcher: Matcher


def between_drives(
    drive_a: str | None, drive_b: str | None, gps_distance_m: float | None, near: bool
) -> bool:
    """Whether a candidate pair is of two drives, at places that GPS does not tell apart.

    `near`: retrieval found it among the photographs near by GPS. Without a position of both, what
    retrieval says is all there is.
    """
    if drive_a is None or drive_b is None or drive_a == drive_b:
        return False
    return near or gps_distance_m is None


def second_view(
    view: TwoView,
    first: tuple[int, int],
    a: LocalFeatures,
    b: LocalFeatures,
    second: SecondKind,
    camera_a: Camera,
    camera_b: Camera,
) -> TwoView:
    """Return the geometry of a pair by its features of the second kind, `a` and `b`, or `view`
    where these do not hold.

    `first` are the numbers of keypoints of the first kind that the two images have: rows of
    matches and inliers count on behind them.
    """
    a, b = (second.kind.strongest(each, _MOST_FEATURES) for each in (a, b))
    other = verify(
        view.image_id_a,
        view.image_id_b,
        a,
        b,
        second.matcher.match(a, b),
        camera_a,
        camera_b,
        min_inliers=_MIN_INLIERS,
        min_inlier_share=_MIN_INLIER_SHARE,
    )
    if not other.verified:
        return view
    behind = np.array(first, np.uint32)
    return replace(other, matches=other.matches + behind, inliers=other.inliers + behind)
