from __future__ import annotations

import math

import pytest
import torch

from vladmap.models.training.losses import multi_similarity, triplet_ranking

# Unit vectors in the plane, named by their angle in degrees.
EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
STEEP = [0.6, 0.8]  # cosine to EAST 0.6, to NORTH 0.8


def test_triplet_loss_of_a_tuple_worked_out_by_hand() -> None:
    # Squared distances from EAST: to STEEP 2 - 2 * 0.6 = 0.8, to NORTH 2, to WEST 4.
    query = torch.tensor([EAST])
    positives = torch.tensor([[NORTH, STEEP]])
    negatives = torch.tensor([[STEEP, NORTH, EAST]])
    # The nearest positive is STEEP at 0.8; violations: 0.8 + 0.1 - (0.8, 2, 0) = 0.1, none, 0.9.
    assert float(triplet_ranking(query, positives, negatives)) == pytest.approx(0.1 + 0.9)
    # With a margin of 2: 2.8 - (0.8, 2, 0) = 2 + 0.8 + 2.8.
    assert float(triplet_ranking(query, positives, negatives, margin=2)) == pytest.approx(5.6)


def test_triplet_loss_is_the_mean_over_tuples_and_leaves_out_what_is_not_there() -> None:
    queries = torch.tensor([EAST, EAST])
    positives = torch.tensor([[STEEP, STEEP], [EAST, WEST]])
    negatives = torch.tensor([[EAST, EAST], [EAST, STEEP]])
    there = torch.tensor([[True, False, True, False], [False, True, True, True]])
    # First: one positive at 0.8, one negative at 0: 0.9. Second: its positive at 0 is not there,
    # the other is WEST at 4: 4.1 - 0 and 4.1 - 0.8.
    expected = (0.9 + 4.1 + 3.3) / 2
    assert float(triplet_ranking(queries, positives, negatives, there)) == pytest.approx(expected)


def test_only_the_best_positive_and_the_violating_negatives_are_moved() -> None:
    positives = torch.tensor([[NORTH, STEEP]], requires_grad=True)
    negatives = torch.tensor([[WEST, EAST]], requires_grad=True)
    triplet_ranking(torch.tensor([EAST]), positives, negatives).backward()
    assert positives.grad is not None
    assert negatives.grad is not None
    assert positives.grad[0, 0].abs().sum() == 0
    assert positives.grad[0, 1].abs().sum() > 0
    assert negatives.grad[0, 0].abs().sum() == 0


def test_a_descriptor_that_is_its_negative_gives_finite_gradients() -> None:
    query = torch.tensor([EAST], requires_grad=True)
    triplet_ranking(query, torch.tensor([[EAST]]), torch.tensor([[EAST]])).backward()
    assert query.grad is not None
    assert bool(torch.isfinite(query.grad).all())


def test_multi_similarity_of_three_images_worked_out_by_hand() -> None:
    # a = EAST and b = STEEP are alike (0.6), c = NORTH is unlike both (0 to a, 0.8 to b).
    descriptors = torch.tensor([EAST, STEEP, NORTH])
    alike = torch.zeros(3, 3, dtype=torch.bool)
    alike[0, 1] = alike[1, 0] = True
    unlike = torch.zeros(3, 3, dtype=torch.bool)
    unlike[:2, 2] = unlike[2, :2] = True
    # Anchor a: its unlike pair at 0 is not above 0.6 - 0.1, its alike one at 0.6 is not below
    # 0 + 0.1: nothing is kept. Anchor b: 0.8 > 0.5 and 0.6 < 0.9, both are kept. Anchor c has no
    # image of its place and does not count.
    b = math.log(1 + math.exp(-0.6)) + math.log(1 + math.exp(50 * 0.8)) / 50
    assert float(multi_similarity(descriptors, alike, unlike)) == pytest.approx(b / 2, rel=1e-6)
    # With a base of 0.5 and a wider mining a keeps both: 0.6 < 0 + 0.7, and 0 > 0.6 - 0.7.
    a = math.log(1 + math.exp(-0.1)) + math.log(1 + math.exp(50 * -0.5)) / 50
    b = math.log(1 + math.exp(-0.1)) + math.log(1 + math.exp(50 * 0.3)) / 50
    found = multi_similarity(descriptors, alike, unlike, base=0.5, epsilon=0.7)
    assert float(found) == pytest.approx((a + b) / 2, rel=1e-6)


def test_multi_similarity_without_pairs_is_nil_and_has_gradients() -> None:
    descriptors = torch.tensor([EAST, NORTH], requires_grad=True)
    none = torch.zeros(2, 2, dtype=torch.bool)
    loss = multi_similarity(descriptors, none, none)
    loss.backward()
    assert loss.item() == 0
    assert descriptors.grad is not None
    assert bool(torch.isfinite(descriptors.grad).all())
