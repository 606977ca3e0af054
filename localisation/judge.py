"""Whether a found pose is one to be told, and if not, whether the place is.

A pose is told where nothing speaks against it: enough keypoints, no other place that explains
nearly as many, no part of the picture that the map contradicts, points that hold the position. What
cannot be told right from wrong is `unknown`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vladmap.geodesy.wgs84 import geodetic_to_enu
from vladmap.localisation.evidence import covered_share, explained_share
from vladmap.localisation.locate import Evidence, names_of
from vladmap.localisation.map_view import MapView, Photograph
from vladmap.localisation.poses import Candidate, FoundPose
from vladmap.localisation.query import Query
from vladmap.localisation.settings import LocaliseSettings
from vladmap.mapping.camera import Camera
from vladmap.mapping.two_view import verify
from vladmap.photos.headers.projection import PERSPECTIVE
from vladmap.schemas.localisation_tables import LocalisationReason as Reason
from vladmap.schemas.localisation_tables import LocalisationStatus as Status

MIN_INLIERS = 25
"""A pose that explains fewer keypoints is not told."""
RIVAL_SHARE = 0.5
"""A pose is ambiguous where another place explains more than this share of its keypoints."""
EXPLAINED_SHARE = 0.45
"""A pose is not told where the map has points in parts of the picture and it shows them in less
than this share of these parts."""
MOST_SIGMA_M = 1.0
"""A pose whose position is less certain than this is not told."""
PLACE_INLIERS = 45
"""A place is told where the geometry with its photograph has so many inliers, of more than one
plane: two pictures of one facade may be of two houses."""
PLACE_SHARE = 0.45
"""The inliers must lie in so large a share of the picture's parts."""
SAME_PLACE_M = 25.0
"""Photographs within this distance show one place."""
_TRIED = 5
_IN_DEPTH = ("CALIBRATED", "UNCALIBRATED")


@dataclass(frozen=True)
class Verdict:
    """What is told of a photograph. `reason` and `detail` say why it is no more; None for a pose.

    `place` is the candidate that shows the same place, `place_inliers` the inliers of the geometry
    with it; of an unknown one it is the most alike, for people to look at.
    """

    status: Status
    reason: Reason | None = None
    detail: str | None = None
    place: Candidate | None = None
    place_inliers: int | None = None
    explained: float | None = None


def judge(view: MapView, query: Query, evidence: Evidence, settings: LocaliseSettings) -> Verdict:
    """What is told of a query."""
    best, candidates = evidence.best, evidence.candidates
    most_alike = candidates[0] if candidates else None
    if not candidates:
        return Verdict(
            Status.UNKNOWN,
            Reason.NONE_NEAR,
            f"the atlas has no photograph within {settings.reach_m:g} m of its GPS",
        )
    if query.facts.get("projection", PERSPECTIVE) != PERSPECTIVE:
        why = f"{query.facts['projection']}: not the picture of one lens"
        return Verdict(Status.UNKNOWN, Reason.PANORAMA, why, most_alike)
    if query.features is None:
        why = "the picture shows nothing to be matched"
        if view.features is None:
            why = "the atlas has no local features: run `vladmap build` to its end"
        return Verdict(Status.UNKNOWN, Reason.NO_FEATURES, why, most_alike)
    if best is None or best.keypoints < MIN_INLIERS:
        found = 0 if best is None else best.keypoints
        reason = Reason.FEW_INLIERS if view.models else Reason.NO_MAP
        why = f"{found} keypoints show points of the map in one pose, {MIN_INLIERS} are needed"
        return _place(view, query, evidence, reason, why if view.models else "there is no map")
    supporting = candidates[int(np.argmax(best.support))]
    inliers = int(best.support.max())
    explained = explained_share(best, names_of(candidates))
    if against := _against(view, query, evidence, best, explained, settings):
        return Verdict(Status.UNKNOWN, *against, supporting, inliers, explained)
    sigma = sigma_m(best) if best.model.stored.georegistered else 0.0  # else not in metres
    if sigma > MOST_SIGMA_M:
        why_loose = f"its points hold the position to {sigma:.1f} m only"
        return _place(view, query, evidence, Reason.LOOSE, why_loose)
    return Verdict(Status.POSE, None, None, supporting, inliers, explained)


def sigma_m(found: FoundPose) -> float:
    """The standard deviation of the position in space, in metres."""
    return float(np.sqrt(np.trace(found.pose.covariance[:3, :3])))


def _against(
    view: MapView,
    query: Query,
    evidence: Evidence,
    best: FoundPose,
    explained: float | None,
    settings: LocaliseSettings,
) -> tuple[Reason, str] | None:
    """What makes a pose doubtful for all its inliers."""
    rival = evidence.rival
    if rival is not None and rival.keypoints > RIVAL_SHARE * best.keypoints:
        return Reason.AMBIGUOUS, (
            f"{best.keypoints} keypoints fit here, {rival.keypoints} at another place"
        )
    if explained is None:
        return Reason.PARTLY_EXPLAINED, "the map has points in too small a part of the picture"
    if explained < EXPLAINED_SHARE:
        return Reason.PARTLY_EXPLAINED, (
            f"only {explained:.0%} of the picture's parts show what the map has there"
        )
    if settings.reach_m and query.position is not None and best.model.stored.georegistered:
        here = geodetic_to_enu(np.array([*query.position, 0.0]), best.model.stored.origin)
        apart = float(np.linalg.norm((best.pose.centre - here)[:2]))
        if apart > settings.reach_m:
            return Reason.FAR_FROM_GPS, f"the pose lies {apart:,.0f} m from its GPS"
    return None


def _place(view: MapView, query: Query, evidence: Evidence, reason: Reason, why: str) -> Verdict:
    """The place, where the geometry with one photograph of it is clear; else unknown."""
    order = sorted(evidence.candidates, key=lambda each: -len(each.matches))[:_TRIED]
    counted = [(_inliers(view, query, evidence.camera, each), each) for each in order]
    counted.sort(key=lambda pair: (-pair[0], pair[1].rank))
    most, first = counted[0]
    here = view.photograph(first.image_id)
    elsewhere = [n for n, each in counted[1:] if _apart(here, view.photograph(each.image_id))]
    if most < PLACE_INLIERS:
        return Verdict(Status.UNKNOWN, reason, why, evidence.candidates[0], None)
    if max(elsewhere, default=0) > RIVAL_SHARE * most:
        return Verdict(Status.UNKNOWN, Reason.AMBIGUOUS, "two places fit alike", first, most)
    return Verdict(Status.PLACE, reason, why, first, most)


def _inliers(view: MapView, query: Query, camera: Camera, candidate: Candidate) -> int:
    """Inliers of the two-view geometry of a query with a candidate, 0 where it proves no place."""
    theirs = view.features_of(candidate.image_id)
    if query.features is None or theirs is None:
        return 0
    seen = verify(
        "", candidate.image_id, query.features, theirs, candidate.matches, camera,
        view.camera_of(candidate.image_id),
    )  # fmt: skip
    if not seen.verified or seen.configuration not in _IN_DEPTH:
        return 0
    share = covered_share(query.features, query.size, seen.inliers[:, 0].astype(np.int64))
    return len(seen.inliers) if share >= PLACE_SHARE else 0


def _apart(a: Photograph, b: Photograph) -> bool:
    """Whether two photographs of the atlas are known to show different places."""
    offset = geodetic_to_enu(
        np.array([b.latitude, b.longitude, 0.0]), np.array([a.latitude, a.longitude, 0.0])
    )
    return bool(np.linalg.norm(offset) > SAME_PLACE_M)
