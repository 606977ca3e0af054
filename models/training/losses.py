"""Losses that teach a descriptor which photographs show one place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vladmap.models.training.recipe import MARGIN


def triplet_ranking(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    there: Tensor | None = None,
    margin: float = MARGIN,
) -> Tensor:
    """The weakly supervised triplet ranking loss, mean over the tuples: a scalar.

    `queries` (T, D), the potential `positives` (T, P, D) and `negatives` (T, N, D) of each are unit
    vectors. Only the potential positive p nearest to the query counts, since it is unknown which of
    them show the same scene: sum over negatives n of max(0, d(q, p)^2 + margin - d(q, n)^2).
    Entries of `there` (T, P + N), positives first, are False where a tuple has fewer.

    Arandjelovic et al., "NetVLAD: CNN architecture for weakly supervised place recognition"
    (CVPR 2016), equation 7.
    """
    to_positives = (queries[:, None] - positives).square().sum(2)
    to_negatives = (queries[:, None] - negatives).square().sum(2)
    count = positives.shape[1]
    if there is None:
        there = torch.ones(len(queries), count + negatives.shape[1], dtype=torch.bool)
        there = there.to(queries.device)
    best = to_positives.masked_fill(~there[:, :count], torch.inf).min(dim=1).values
    violations = functional.relu(best[:, None] + margin - to_negatives)
    return (violations * there[:, count:]).sum(1).mean()


def multi_similarity(
    descriptors: Tensor,
    alike: Tensor,
    unlike: Tensor,
    alpha: float = 1.0,
    beta: float = 50.0,
    base: float = 0.0,
    epsilon: float = 0.1,
) -> Tensor:
    """The multi-similarity loss, mean over the images that have another of their place: a scalar.

    `descriptors` (B, D) are unit vectors; `alike` and `unlike` (B, B) are boolean: pairs of one
    place, and of different places; both are False where that is unknown. Only hard pairs of an
    image count: an unlike one that is more similar than its least similar alike one minus
    `epsilon`, and an alike one that is less similar than its most similar unlike one plus
    `epsilon`.

    Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning"
    (CVPR 2019), equations 11 to 13; the constants are those that SuperVLAD is trained with.
    """
    similarity = descriptors @ descriptors.T
    with torch.no_grad():
        least = similarity.masked_fill(~alike, torch.inf).min(dim=1, keepdim=True).values
        most = similarity.masked_fill(~unlike, -torch.inf).max(dim=1, keepdim=True).values
        hard_unlike = unlike & (similarity > least - epsilon)
        hard_alike = alike & (similarity < most + epsilon)
    pull = _log_one_plus_sum(-alpha * (similarity - base), hard_alike) / alpha
    push = _log_one_plus_sum(beta * (similarity - base), hard_unlike) / beta
    anchors = alike.any(dim=1)
    return ((pull + push) * anchors).sum() / anchors.sum().clamp(min=1)


def _log_one_plus_sum(exponents: Tensor, mask: Tensor) -> Tensor:
    """log(1 + sum of exp) over the entries of each row where `mask` is True."""
    one = torch.zeros_like(exponents[:, :1])
    return torch.cat([one, exponents.masked_fill(~mask, -torch.inf)], dim=1).logsumexp(dim=1)
