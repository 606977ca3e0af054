"""Re-ranking the candidates of a query by their patches.

Hausler et al., "Patch-NetVLAD" (CVPR 2021): mutual nearest neighbours of patch descriptors, then a
rapid spatial score or the inliers of a homography, z-scored over the candidates and fused over the
patch sizes. All candidates are computed together, on the CPU or a GPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vladmap.retrieval.names import BY_PATCHES
from vladmap.retrieval.stored_patches import Patches, StoredPatches

_PUBLISHED_WEIGHTS = {3: (0.45, 0.15, 0.40)}  # of sizes 2, 5 and 8
_INLIER_CELLS = 1.5  # a homography's inliers, in cells of the feature map
_HYPOTHESES = 512
_LEAST_MUTUAL = 4  # a homography has eight unknowns
_EXACT = (1 << 24) // 127**2  # products of int8 that float32 adds up exactly
# Cosines that are computed at once. On a CPU so many fit into its caches, which is three times as
# fast as ten times as many; a GPU needs more to be busy.
_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 27}


class Reranked(NamedTuple):
    """The result of re-ranking C candidates.

    `order` (C,) holds the candidates' positions in the input, best first. `scores` (C,), in input
    order, are fused over the patch sizes and comparable only within this list. `raw` (C, S) are the
    scores at each patch size, larger being better: the published ones with the sign reversed.
    """

    order: NDArray[np.int64]
    scores: NDArray[np.float64]
    raw: NDArray[np.float64]


def rerank(
    query_patches: Patches | StoredPatches,
    candidate_patches: Patches | StoredPatches,
    method: str = "rapid",
    weights: Sequence[float] | None = None,
    centroids: Sequence[NDArray[np.float32]] | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Reranked:
    """Order C candidates by how well their patches match those of one query.

    `query_patches` are of one image, `candidate_patches` of C images of one size, both of the same
    patch sizes. `method` is `rapid` (spatial consistency of the matches) or `ransac` (inliers of a
    homography). `weights` of the patch sizes are the published ones for three sizes, else equal.
    With `centroids`, (M, d) for each patch size, matches of the rapid score are weighted by context
    (see `contextual_weights`). The same `seed` gives the same result. Candidates of equal score
    keep the order they were given in.
    """
    raw = raw_scores(query_patches, candidate_patches, method, centroids, device, seed)
    scores = fuse(raw, weights)
    return Reranked(np.argsort(-scores, kind="stable"), scores, raw)


def fuse(raw: NDArray[np.float64], weights: Sequence[float] | None = None) -> NDArray[np.float64]:
    """(C, S) raw scores -> (C,): z-scored over the candidates, then the weighted sum of sizes.

    A size at which all candidates have the same score contributes 0.
    """
    sizes = raw.shape[1]
    if weights is None:
        weights = _PUBLISHED_WEIGHTS.get(sizes, (1 / sizes,) * sizes)
    if len(weights) != sizes:
        raise ValueError(f"{len(weights)} weights for {sizes} patch sizes")
    deviation = raw.std(axis=0)
    centred = raw - raw.mean(axis=0)
    z = np.divide(centred, deviation, out=np.zeros_like(raw), where=deviation > 0)
    return z @ np.asarray(weights, np.float64)


def raw_scores(
    query: Patches | StoredPatches,
    candidates: Patches | StoredPatches,
    method: str = "rapid",
    centroids: Sequence[NDArray[np.float32]] | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> NDArray[np.float64]:
    """(C, S) scores of each candidate and patch size, larger being better.

    They do not depend on the other candidates. Raises ValueError for an unknown method or patches
    that do not fit together.
    """
    if method not in BY_PATCHES:
        raise ValueError(f"unknown method {method!r}: choose one of {', '.join(BY_PATCHES)}")
    if len(query.descriptors) != len(candidates.descriptors):
        raise ValueError("the query and its candidates have other patch sizes")
    if any(len(rows) != 1 for rows in query.descriptors):
        raise ValueError("re-ranking takes the patches of one query at a time")
    if centroids is not None and method != "rapid":
        raise ValueError("only the rapid score is weighted by context")
    columns = []
    for s in range(len(query.descriptors)):
        ours, theirs = _Side.of(query, s, device), _Side.of(candidates, s, device)
        context = None if centroids is None else torch.from_numpy(centroids[s]).to(device)
        columns.append(_scores(ours, theirs, method, context, seed))
    return torch.stack(columns, dim=1).cpu().double().numpy()


def scores_of_each(
    query: StoredPatches, candidates: Sequence[StoredPatches], method: str, device: str = "cpu"
) -> NDArray[np.float64]:
    """(C,) scores of candidates whose grids of patches may differ.

    Each candidate holds one image (N = 1) at one patch size. Candidates with the same grid are
    scored together by `raw_scores`, on `device`.
    """
    by_grid: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, one in enumerate(candidates):
        by_grid[*one.descriptors[0].shape, *one.centres[0].max(axis=0).tolist()].append(place)
    scores = np.zeros(len(candidates))
    for places in by_grid.values():
        members = [candidates[place] for place in places]
        together = StoredPatches(
            [np.concatenate([one.descriptors[0] for one in members])],
            members[0].centres,
            [np.concatenate([one.scales[0] for one in members])],
        )
        scores[places] = raw_scores(query, together, method, device=device)[:, 0]
    return scores


def by_inliers(
    inliers: NDArray[np.int64], similarity: NDArray[np.floating], inliers_a_cosine: float
) -> NDArray[np.int64]:
    """The order (C,) of candidates, best first, by similarity + inliers / inliers_a_cosine.

    `inliers` (C,) are those of their local features, `similarity` (C,) the cosines of their
    descriptors. `inliers_a_cosine` is the number of inliers that weighs as much as a cosine of 1,
    measured for each matcher (docs/performance.md). The two are added because any two streets have
    a few dozen inliers, which must not outweigh a clear difference of cosines. Candidates of equal
    score keep their order.
    """
    return np.argsort(-(similarity + inliers / inliers_a_cosine), kind="stable")


class _Side(NamedTuple):
    """Patches of one size on a device: rows (N, P, d), scales (N, P) or None, centres (P, 2)."""

    rows: Tensor
    scales: Tensor | None
    centres: Tensor

    @classmethod
    def of(cls, patches: Patches | StoredPatches, s: int, device: str) -> _Side:
        rows = _tensor(patches.descriptors[s])
        scales = None
        if isinstance(patches, StoredPatches):
            scales = _tensor(patches.scales[s]).to(device)
        elif rows.dtype != torch.float32:
            rows = rows.float()
        return cls(rows.to(device), scales, torch.from_numpy(patches.centres[s]).to(device))

    def part(self, start: int, end: int) -> _Side:
        scales = None if self.scales is None else self.scales[start:end]
        return _Side(self.rows[start:end], scales, self.centres)

    def floats(self) -> Tensor:
        if self.scales is None:
            return self.rows
        return self.rows.float() * self.scales[..., None]


def _tensor(array: NDArray[np.generic]) -> Tensor:
    """A tensor of an array, copied if the array is read-only (a memory-mapped file)."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _scores(
    query: _Side, candidates: _Side, method: str, centroids: Tensor | None, seed: int
) -> Tensor:
    nearest, mutual = _mutual(query, candidates)
    if method == "ransac":
        return _homography_inliers(query, candidates, nearest, mutual, seed) / query.rows.shape[1]
    weights = mutual.float()
    if centroids is not None:
        ours = contextual_weights(query.floats(), query.centres, centroids)[0]
        theirs = contextual_weights(candidates.floats(), candidates.centres, centroids)
        weights = weights * (ours[nearest] * theirs).sqrt()
    return _rapid(query, candidates, nearest, mutual, weights)


def _mutual(query: _Side, candidates: _Side) -> tuple[Tensor, Tensor]:
    """(N, P) nearest patch of the query to each candidate patch, and whether they are mutual."""
    count, patches = candidates.rows.shape[:2]
    device = candidates.rows.device
    step = max(1, _AT_ONCE[device.type] // max(1, patches * query.rows.shape[1]))
    nearest = torch.zeros(count, patches, dtype=torch.long, device=device)
    mutual = torch.zeros(count, patches, dtype=torch.bool, device=device)
    for start in range(0, count, step):
        part = slice(start, start + step)
        similarity = _similarity(query, candidates.part(start, start + step))
        nearest[part] = _argmax(similarity)
        best = similarity.gather(2, nearest[part][..., None])[..., 0]
        mutual[part] = best == similarity.amax(1).gather(1, nearest[part])
    # Equal patches occur, in a plain sky for instance: only the first counts as the nearest.
    places = torch.arange(patches, device=device).expand_as(nearest)
    first = torch.full((count, query.rows.shape[1]), patches, device=device)
    first.scatter_reduce_(1, nearest, places.where(mutual, places.new_tensor(patches)), "amin")
    return nearest, mutual & (first.gather(1, nearest) == places)


def _argmax(similarity: Tensor) -> Tensor:
    if similarity.device.type == "cpu":
        return torch.from_numpy(similarity.numpy().argmax(2))  # five times as fast as torch's
    return similarity.argmax(2)


def _similarity(query: _Side, candidates: _Side) -> Tensor:
    """Cosines (N, P, Q) of the candidates' P patches and the query's Q patches.

    Those of int8 patches are computed from exact integer products.
    """
    count, patches, dimension = candidates.rows.shape
    if candidates.scales is None or query.scales is None:
        floats = candidates.floats().reshape(-1, dimension) @ query.floats()[0].T
        return floats.view(count, patches, -1)
    rows, columns = candidates.rows.reshape(-1, dimension), query.rows[0].T.contiguous()
    if rows.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512":
        products = torch._int_mm(rows, columns)
    else:
        # A CPU without AVX-512 takes thirty times as long in integers (measured).
        products = exact_products(rows, columns)
    scaled = products.view(count, patches, -1) * query.scales[0]
    return scaled.mul_(candidates.scales[..., None])


def exact_products(rows: Tensor, columns: Tensor) -> Tensor:
    """Products of int8 matrices (M, D) and (D, N), exact: whole numbers as float32, or as int32.

    Computed in float32, which holds sums up to 2^24 exactly: those of 1,040 products of int8, in
    any order. More dimensions are added up in integers.
    """
    parts = zip(rows.split(_EXACT, 1), columns.split(_EXACT, 0), strict=True)
    products = [ours.float() @ theirs.float() for ours, theirs in parts]
    if len(products) == 1:
        return products[0]
    return torch.stack([part.to(torch.int32) for part in products]).sum(0, dtype=torch.int32)


def _step(centres: Tensor) -> float:
    """The distance in pixels between adjacent patches; 1 if there is only one patch."""
    steps = [float(axis.unique().diff().amin()) for axis in centres.T if len(axis.unique()) > 1]
    return min(steps, default=1.0)


def _rapid(
    query: _Side, candidates: _Side, nearest: Tensor, mutual: Tensor, weights: Tensor
) -> Tensor:
    """Rapid spatial scores (N,): the sum over matches of (extent - |shift - mean shift|)^2.

    The sum is over x and y, and is divided by the number of patches. Shifts and extents are in
    cells; `weights` (N, P) of the matches are 1 in the published score.
    """
    step, start = _step(query.centres), query.centres.amin(0)
    ours = (query.centres - start) / step
    shift = (candidates.centres - start) / step - ours[nearest]  # (N, P, 2)
    shift = shift.where(mutual[..., None], shift.new_tensor(0.0))
    count = mutual.sum(1).clamp(min=1)
    mean = shift.sum(1) / count[:, None]
    residual = (ours.amax(0) - (shift - mean[:, None]).abs()).square().sum(2)
    return (residual * weights).sum(1) / len(ours)


def _homography_inliers(
    query: _Side, candidates: _Side, nearest: Tensor, mutual: Tensor, seed: int
) -> Tensor:
    """The largest number of inliers (N,) among 512 homographies, each from four random matches.

    A match is an inlier if the homography maps the candidate's patch to within 1.5 cells of the
    query's. Candidates with fewer than four matches score 0.
    """
    counts = mutual.sum(1)
    most = int(counts.max()) if len(counts) else 0
    most_inliers = torch.zeros(len(mutual), device=mutual.device)
    if most < _LEAST_MUTUAL:
        return most_inliers
    scale = query.centres.amax().clamp(min=1)
    threshold = _INLIER_CELLS * _step(query.centres) / scale
    # Each candidate's matches come first, in their order; patches without a match pad the rows to
    # one length and are masked out below.
    order = mutual.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    source = _homogeneous(candidates.centres / scale)[order]  # (N, M, 3)
    target = _homogeneous(query.centres / scale)[nearest.gather(1, order)]
    match = torch.arange(most, device=mutual.device) < counts[:, None]
    generator = torch.Generator().manual_seed(seed)
    # One random draw for all candidates: a score does not depend on the position in the list.
    draws = torch.rand(_HYPOTHESES, 4, generator=generator).to(mutual.device)
    picks = (draws * counts[:, None, None]).long()  # (N, H, 4)
    step = max(1, _AT_ONCE[mutual.device.type] // (_HYPOTHESES * most))
    for start in range(0, len(mutual), step):
        part = slice(start, start + step)
        rows = torch.arange(len(picks[part]), device=mutual.device)[:, None, None]
        four = source[part][rows, picks[part]], target[part][rows, picks[part]]  # (n, H, 4, 3)
        homographies = _from_four(*(points.flatten(0, 1) for points in four)).float()
        homographies = homographies.view(-1, 3 * _HYPOTHESES, 3)
        moved = homographies @ source[part].float().transpose(1, 2)
        x, y, w = moved.unflatten(1, (_HYPOTHESES, 3)).unbind(2)  # (n, H, M) each
        u, v = target[part, None, :, :2].float().unbind(3)
        error = (x - w * u).square_().add_((y - w * v).square_())
        inliers = (error <= (w * threshold).square()).logical_and_(w.abs() > 1e-6)
        most_inliers[part] = inliers.logical_and_(match[part, None]).sum(2).amax(1).float()
    return most_inliers.where(counts >= _LEAST_MUTUAL, most_inliers.new_tensor(0.0))


def _homogeneous(points: Tensor) -> Tensor:
    return torch.cat([points, torch.ones_like(points[:, :1])], dim=1).double()


def _from_four(source: Tensor, target: Tensor) -> Tensor:
    """Homographies (H, 3, 3) that map (H, 4, 3) source points to target points.

    Four points are a projective basis, so that the map between two bases has a closed form. The
    result is zero where three of the points are collinear.
    """
    to_source, to_target = _basis(source), _basis(target)
    homographies = to_target @ _adjugate(to_source)
    lengths = torch.linalg.matrix_norm(homographies)
    degenerate = (torch.linalg.det(to_source).abs() < 1e-12) | (lengths < 1e-12)
    scaled = homographies / lengths.clamp(min=1e-12)[:, None, None]
    return scaled.where(~degenerate[:, None, None], scaled.new_tensor(0.0))


def _basis(points: Tensor) -> Tensor:
    """(H, 4, 3) points -> matrices (H, 3, 3) that map the unit vectors and (1, 1, 1) to them."""
    three = points[:, :3].transpose(1, 2)
    return three * (_adjugate(three) @ points[:, 3:].transpose(1, 2)).transpose(1, 2)


def _adjugate(m: Tensor) -> Tensor:
    a, b, c = m.unbind(1)
    crosses = [torch.linalg.cross(*pair) for pair in ((b, c), (c, a), (a, b))]
    return torch.stack(crosses, dim=2)


def contextual_weights(rows: Tensor, centres: Tensor, centroids: Tensor) -> Tensor:
    """Weights (N, P) of the patches' matches, with a mean of 1 in each image.

    After Contextual Patch-NetVLAD (Sensors 24(3):855): a patch weighs more the farther it is from
    the centroids (M, d) of the database's patches (rarity), and the more it differs from adjacent
    patches (saliency). Both are cosine distances; the paper's scaling of them is not public.
    """
    rarity = 1 - (rows @ centroids.T).amax(2)
    xs, ys = centres[:, 0].unique(), centres[:, 1].unique()
    grid = rows.unflatten(1, (len(ys), len(xs)))
    total = torch.zeros(grid.shape[:3], device=rows.device)
    count = torch.zeros_like(total)
    across = 1 - (grid[:, :, 1:] * grid[:, :, :-1]).sum(3)
    down = 1 - (grid[:, 1:] * grid[:, :-1]).sum(3)
    for there, distance in (
        (np.s_[:, :, 1:], across),
        (np.s_[:, :, :-1], across),
        (np.s_[:, 1:], down),
        (np.s_[:, :-1], down),
    ):
        total[there] += distance
        count[there] += 1
    saliency = (total / count.clamp(min=1)).flatten(1)
    worth = rarity.clamp(min=0) * saliency.clamp(min=0)
    return worth / worth.mean(1, keepdim=True).clamp(min=1e-12)
