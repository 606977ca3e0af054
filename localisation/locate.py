"""One photograph: from its descriptor and features to a pose, a place, or neither, with reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vladmap.features.base import LocalFeatures, Matcher
from vladmap.localisation.map_view import MapView
from vladmap.localisation.poses import Candidate, FoundPose, found_poses, rival_of
from vladmap.localisation.query import Query
from vladmap.localisation.settings import LocaliseSettings
from vladmap.mapping.camera import Camera
from vladmap.mapping.camera_keys import initial_camera

FROM_ATLAS, FROM_EXIF, ESTIMATED = "atlas", "exif", "estimated"


@dataclass(frozen=True)
class Evidence:
    """All that was found of a query: candidates, the best pose among them, and its best rival.

    `camera_source` says where the focal length of the `camera` comes from: FROM_ATLAS, FROM_EXIF or
    ESTIMATED.
    """

    candidates: list[Candidate]
    best: FoundPose | None
    rival: FoundPose | None
    camera: Camera
    camera_source: str


def gather(
    view: MapView, query: Query, settings: LocaliseSettings, matcher: Matcher | None
) -> Evidence:
    """What the atlas says of a query: photographs like it, their matches, poses.

    Without a matcher, as for an atlas without local features, there are no matches.
    """
    among, here = None, query.position
    if settings.reach_m and here is not None:
        among = view.near(*here, settings.reach_m)
    alike = view.most_alike(query.descriptor, settings.candidates, among)
    candidates = [
        Candidate(image, rank, cosine, _matches(view, image, query.features, matcher))
        for rank, (image, cosine) in enumerate(alike)
    ]
    camera, source = query_camera(view, query)
    poses: list[FoundPose] = []
    if query.features is not None:
        poses = found_poses(
            query.features, candidates, view.models, camera, focal_known=source != ESTIMATED
        )
    best = poses[0] if poses else None
    rival = rival_of(best, poses) if best is not None else None
    return Evidence(candidates, best, rival, camera, source)


def query_camera(view: MapView, query: Query) -> tuple[Camera, str]:
    """The camera to assume, and where its focal length comes from.

    The map's own of that kind where it has photographs of it, else the focal length of EXIF; else
    one that is to be estimated.
    """
    known = view.camera(query.camera_key)
    if known is not None:
        return known, FROM_ATLAS
    camera = initial_camera(*query.size, query.facts.get("focal_px"))
    return camera, FROM_EXIF if camera.has_prior_focal_length else ESTIMATED


def _matches(
    view: MapView, image_id: str, features: LocalFeatures | None, matcher: Matcher | None
) -> np.ndarray:
    theirs = view.features_of(image_id)
    if features is None or theirs is None or matcher is None:
        return np.zeros((0, 2), np.uint32)
    return matcher.match(features, theirs)


def names_of(candidates: Sequence[Candidate]) -> list[str]:
    """The image ids of candidates."""
    return [each.image_id for each in candidates]
