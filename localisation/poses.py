"""The poses that a photograph may have in a map, by its matches with photographs of the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from vladmap.features.base import LocalFeatures, Matches
from vladmap.geodesy.wgs84 import geodetic_to_enu
from vladmap.localisation.map_view import MapModel
from vladmap.mapping.absolute_pose import AbsolutePose, absolute_pose
from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.camera import Camera

_FEWEST = 6
# Two poses nearer to each other than this many metres say the same, for a rival of the best one;
# in two models each has the error of its GPS.
SAME_PLACE_M, SAME_PLACE_ON_EARTH_M = 3.0, 15.0


@dataclass(frozen=True)
class Candidate:
    """A photograph of the map that may show the same place, and its matches with the query.

    `matches` (m, 2) are keypoints of the query and of the photograph.
    """

    image_id: str
    rank: int
    similarity: float
    matches: Matches


@dataclass(frozen=True)
class Correspondences:
    """c keypoints of the query with the points of one model that they may show, each pair once.

    `keypoint` and `point` (c,) are rows; `votes` (candidates, c) says whose matches say so.
    """

    keypoint: Indices
    point: Indices
    votes: Bools

    def __len__(self) -> int:
        return len(self.keypoint)

    def where(self, kept: Bools) -> Correspondences:
        """Those that are kept."""
        return Correspondences(self.keypoint[kept], self.point[kept], self.votes[:, kept])


@dataclass(frozen=True)
class FoundPose:
    """A pose in a model, and what it explains.

    `explained` are its inliers among the correspondences, `matched` how many keypoints of the query
    these had. `keypoints` is how many different ones it explains, `support` (candidates,) how many
    of the correspondences of each candidate.
    """

    model: MapModel
    pose: AbsolutePose
    explained: Correspondences
    matched: int

    @property
    def keypoints(self) -> int:
        return len(np.unique(self.explained.keypoint))

    @property
    def support(self) -> Indices:
        return self.explained.votes.sum(axis=1)


def correspondences(model: MapModel, candidates: Sequence[Candidate]) -> Correspondences:
    """Which keypoints of the query may show which points of a model."""
    keypoints, points, voters = [], [], []
    for number, candidate in enumerate(candidates):
        if candidate.image_id not in model.row:
            continue
        theirs, shown = model.observations(candidate.image_id)
        _, at, which = np.intersect1d(
            candidate.matches[:, 1].astype(np.int64), theirs, return_indices=True
        )
        keypoints.append(candidate.matches[at, 0].astype(np.int64))
        points.append(shown[which])
        voters.append(np.full(len(at), number))
    none = np.zeros(0, np.int64)
    joined = np.stack([np.concatenate([none, *parts]) for parts in (keypoints, points)], axis=1)
    pairs, which = np.unique(joined, axis=0, return_inverse=True)
    votes = np.zeros((len(candidates), len(pairs)), bool)
    votes[np.concatenate([none, *voters]), which.ravel()] = True
    return Correspondences(pairs[:, 0], pairs[:, 1], votes)


def clusters(model: MapModel, candidates: Sequence[Candidate]) -> list[Bools]:
    """The candidates of a model, in groups that see points in common: a mask for each group.

    They are the connected components of covisibility, as in hloc (Sarlin et al., From coarse to
    fine, CVPR 2019, section 3), the largest first.
    """
    rows = [row for row, each in enumerate(candidates) if each.image_id in model.row]
    if not rows:
        return []
    seen = [model.observations(candidates[row].image_id)[1] for row in rows]
    incidence = sparse.csr_matrix(
        (
            np.ones(sum(map(len, seen)), np.int32),
            np.concatenate(seen),
            np.concatenate([[0], np.cumsum([len(each) for each in seen])]),
        ),
        shape=(len(rows), len(model.arrays.places)),
    )
    count, label = connected_components(incidence @ incidence.T, directed=False)
    masks = []
    for each in range(count):
        mask = np.zeros(len(candidates), bool)
        mask[np.array(rows)[label == each]] = True
        masks.append(mask)
    return sorted(masks, key=lambda mask: (-mask.sum(), np.flatnonzero(mask)[0]))


def found_poses(
    features: LocalFeatures,
    candidates: Sequence[Candidate],
    models: Sequence[MapModel],
    camera: Camera,
    *,
    focal_known: bool,
) -> list[FoundPose]:
    """The poses that groups of candidates give, that which explains most keypoints first.

    Each group gives one, and a second one from what its first leaves unexplained: where several
    places look alike, the others are found too.
    """
    found: list[FoundPose] = []
    for model in models:
        all_of_them = correspondences(model, candidates)
        for group in clusters(model, candidates):
            left = all_of_them.where(np.asarray(all_of_them.votes[group].any(axis=0)))
            matched = len(np.unique(left.keypoint))
            for _ in range(2):
                pose = _pose(features, model, left, camera, focal_known=focal_known)
                if pose is None:
                    break
                explained = left.where(pose.inliers)
                found.append(FoundPose(model, pose, explained, matched))
                left = left.where(~pose.inliers)
    return sorted(found, key=lambda each: -each.keypoints)


def rival_of(best: FoundPose, others: Sequence[FoundPose]) -> FoundPose | None:
    """The pose elsewhere that explains most keypoints."""
    apart = [each for each in others if not _same_place(best, each)]
    return max(apart, key=lambda each: each.keypoints, default=None)


def _same_place(a: FoundPose, b: FoundPose) -> bool:
    """Whether two poses are known to be of one place; two models have only the earth in common."""
    if a.model is b.model:
        return bool(np.linalg.norm(a.pose.centre - b.pose.centre) <= SAME_PLACE_M)
    if not (a.model.stored.georegistered and b.model.stored.georegistered):
        return False
    here, there = (each.model.stored.geographic(each.pose.centre) for each in (a, b))
    return bool(np.linalg.norm(geodetic_to_enu(there, here)) <= SAME_PLACE_ON_EARTH_M)


def _pose(
    features: LocalFeatures,
    model: MapModel,
    pairs: Correspondences,
    camera: Camera,
    *,
    focal_known: bool,
) -> AbsolutePose | None:
    if len(pairs) < _FEWEST:
        return None
    seen: Array = features.keypoints[pairs.keypoint, :2].astype(np.float64)
    return absolute_pose(seen, model.arrays.places[pairs.point], camera, focal_known=focal_known)
