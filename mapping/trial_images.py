"""Which photographs a camera is tried on: a few that verified matches connect best.

How alike two descriptors are proposes pairs, by rank; what their local features share decides.
Neither the sign nor the size of a cosine means anything: those of a small collection, reduced to
what tells its photographs apart, are negative for most true neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vladmap.features.base import LocalFeatures, Matcher, Matches
from vladmap.mapping.arrays import Indices
from vladmap.mapping.two_view import MIN_INLIERS, fundamental_inliers

MAX_IMAGES = 12

# Pairs matched to begin from, candidates matched for each image that is added, and beginnings.
_FIRST_PAIRS = 24
_NEXT_PAIRS = 8
_STARTS = 3
# More inliers than this say that two photographs are near, not that they show more.
_ENOUGH_INLIERS = 100
# Keypoints of an image that trials use.
_KEYPOINTS = 1000
# Matches of a car that stands at a light move by less than this share of the long side.
_STILL = 0.005

Pair = tuple[str, str]


class Evidence:
    """Matches and inliers of pairs of images, each computed once.

    `matches` holds those computed so far, `still` the pairs that show the same picture.
    """

    def __init__(
        self,
        read_features: Callable[[str], LocalFeatures],
        matcher: Matcher,
        max_error_px: float,
        long_side_px: int,
    ) -> None:
        self._matcher = matcher
        self._read, self._error, self._still = read_features, max_error_px, _STILL * long_side_px
        self._features: dict[str, LocalFeatures] = {}
        self._inliers: dict[Pair, int] = {}
        self.matches: dict[Pair, Matches] = {}
        self.still: set[Pair] = set()

    def features(self, image_id: str) -> LocalFeatures:
        """Features of an image, read once."""
        if image_id not in self._features:
            self._features[image_id] = self._read(image_id)
        return self._features[image_id]

    def match(self, a: str, b: str) -> Matches:
        """Matches of a pair, a < b, made once."""
        if (a, b) not in self.matches:
            self.matches[a, b] = self._matcher.match(self.features(a), self.features(b))
        return self.matches[a, b]

    def inliers(self, a: str, b: str) -> int:
        """Matches of a pair that one fundamental matrix explains, 0 of fewer than MIN_INLIERS.

        It needs no camera, and of two fisheye pictures it still explains a good part.
        """
        a, b = min(a, b), max(a, b)
        if (a, b) not in self._inliers:
            matches = self.match(a, b)
            count = fundamental_inliers(self.features(a), self.features(b), matches, self._error)
            self._inliers[a, b] = count if count >= MIN_INLIERS else 0
            if count >= MIN_INLIERS:
                moved = (
                    self.features(a).keypoints[matches[:, 0], :2]
                    - self.features(b).keypoints[matches[:, 1], :2]
                )
                if np.median(np.hypot(moved[:, 0], moved[:, 1])) < self._still:
                    self.still.add((a, b))
        return self._inliers[a, b]


def trial_images(
    pair_a: Sequence[str],
    pair_b: Sequence[str],
    similarity: NDArray[np.float64],
    evidence: Evidence,
    max_images: int = MAX_IMAGES,
) -> list[str]:
    """Return up to `max_images` image ids, sorted, that verified matches connect best.

    The pairs are candidates, `similarity` (n,) orders them. Grown from the best verified of those
    that are each other's likeliest by the image that shares most with those taken so far, where
    there is one; from another beginning where that ends early. Of photographs that show the very
    same picture, as of a car that stands, one is taken.
    """
    ids, flat = np.unique(np.concatenate([pair_a, pair_b]).astype(str), return_inverse=True)
    a, b = flat[: len(pair_a)], flat[len(pair_a) :]
    order = _likeliest_first(a, b, similarity, len(ids))
    a, b = a[order], b[order]
    best: tuple[int, float, list[int]] = (0, 0.0, [])
    fresh = np.ones(len(ids), bool)
    for _ in range(_STARTS):
        start = np.flatnonzero(fresh[a] & fresh[b])[:_FIRST_PAIRS]
        shared = np.array([evidence.inliers(*ids[[a[at], b[at]]].tolist()) for at in start])
        moving = [tuple(sorted(ids[[a[at], b[at]]].tolist())) not in evidence.still for at in start]
        shared = shared * np.array(moving, np.int64)
        if not shared.any():
            break
        first = start[int(np.argmax(shared))]
        taken, weight = _grown([int(a[first]), int(b[first])], a, b, ids, evidence, max_images)
        best = max(best, (len(taken), weight, taken), key=lambda subset: subset[:2])
        if len(taken) >= max_images:
            break
        fresh[taken] = False
    return sorted(str(image_id) for image_id in ids[best[2]])


def _likeliest_first(
    a: Indices, b: Indices, similarity: NDArray[np.float64], images: int
) -> Indices:
    """Return the order of pairs by the worse of their ranks among their images' pairs.

    Ties are in the order of similarity.
    """
    order = np.argsort(-similarity, kind="stable")
    end = np.stack([a[order], b[order]], axis=1).ravel()
    by_image = np.argsort(end, kind="stable")
    count = np.bincount(end, minlength=images)
    rank = np.empty(len(end), np.int64)
    rank[by_image] = np.arange(len(end)) - np.repeat(np.cumsum(count) - count, count)
    worse = rank.reshape(-1, 2).max(axis=1)
    return order[np.argsort(worse, kind="stable")]


def _grown(
    taken: list[int],
    a: Indices,
    b: Indices,
    ids: NDArray[np.str_],
    evidence: Evidence,
    max_images: int,
) -> tuple[list[int], float]:
    """Return the images that grow from `taken`, and the sum of the inliers that they share."""
    weight = np.zeros(len(ids))
    seen = np.zeros(len(a), bool)
    barred = np.zeros(len(ids), bool)
    barred[taken] = True
    total = 0.0
    while len(taken) < max_images:
        reaches = np.isin(a, taken) ^ np.isin(b, taken)
        for at in np.flatnonzero(reaches & ~seen & ~(barred[a] & barred[b]))[:_NEXT_PAIRS]:
            seen[at] = True
            one, other = str(ids[a[at]]), str(ids[b[at]])
            new = int(b[at] if a[at] in taken else a[at])
            weight[new] += min(evidence.inliers(one, other), _ENOUGH_INLIERS)
            if (min(one, other), max(one, other)) in evidence.still:
                barred[new] = True
        open_ends = np.where(barred, 0.0, weight)
        if not open_ends.any():
            if not (reaches & ~seen & ~(barred[a] & barred[b])).any():
                break
            continue
        new = int(np.argmax(open_ends))
        total += float(open_ends[new])
        taken.append(new)
        barred[new] = True
    return taken, total


def most_matched(
    features: Mapping[str, LocalFeatures], matches: Mapping[tuple[str, str], Matches]
) -> dict[tuple[str, str], Matches]:
    """Return the matches among each image's 1000 keypoints that match most often.

    They make the longest tracks, and the trials take time in proportion to their number.
    """
    votes = {image_id: np.zeros(len(each), np.int64) for image_id, each in features.items()}
    for (a, b), pair_matches in matches.items():
        votes[a][pair_matches[:, 0]] += 1
        votes[b][pair_matches[:, 1]] += 1
    selected = {}
    for image_id, count in votes.items():
        selected[image_id] = np.zeros(len(count), bool)
        selected[image_id][np.argsort(-count, kind="stable")[:_KEYPOINTS]] = True
    return {
        (a, b): pair_matches[selected[a][pair_matches[:, 0]] & selected[b][pair_matches[:, 1]]]
        for (a, b), pair_matches in matches.items()
    }
