"""Distillation: the loss by hand, what crops are, and that a student comes to see through dark."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.models.synthetic import photographs
from vladmap.models.backbones import ghost
from vladmap.models.backbones.registry import backbone, installed
from vladmap.models.training.distillation import (
    Distillation,
    Distiller,
    Scenes,
    crops,
    relational_loss,
    view_shares,
)
from vladmap.models.training.trainable import TrainableModel, calibrate, learnt_aggregation
from vladmap.schemas.rejects import UserError

pytestmark = pytest.mark.medium

SIZE = (96, 64)
NONE = Scenes(np.empty((0, SIZE[1], SIZE[0], 3), np.uint8), [], [])


def test_the_loss_is_the_cross_entropy_of_relations_by_hand() -> None:
    """Two locations at a right angle, temperature 1: the teacher's relations are softmax(1, 0)
    and softmax(0, 1). A student that has them swapped pays for each."""
    teacher = torch.eye(2)
    near, far = np.exp(1) / (np.exp(1) + 1), 1 / (np.exp(1) + 1)
    as_taught = -(near * np.log(near) + far * np.log(far))
    swapped = -(near * np.log(far) + far * np.log(near))
    assert float(relational_loss(teacher, teacher, 1.0)) == pytest.approx(as_taught, rel=1e-5)
    assert float(relational_loss(teacher.flip(0), teacher, 1.0)) == pytest.approx(swapped, rel=1e-5)


def test_no_student_beats_the_teacher_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = functional.normalize(torch.randn(40, 8, generator=generator), dim=1)
    least = float(relational_loss(teacher, teacher, 0.1))
    for seed in range(20):
        other = torch.Generator().manual_seed(seed + 1)
        moved = teacher + 0.3 * torch.randn(40, 8, generator=other)
        assert float(relational_loss(functional.normalize(moved, dim=1), teacher, 0.1)) > least


def test_a_student_of_other_channels_is_compared_by_its_own_relations() -> None:
    """Three locations, the first two alike to the teacher. By hand: the relations of the first to
    the second and the third are softmax(1, 0), of the third to the others a half each."""
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    near, far = np.exp(1) / (np.exp(1) + 1), 1 / (np.exp(1) + 1)
    least = (-2 * (near * np.log(near) + far * np.log(far)) + np.log(2)) / 3
    alike = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert float(relational_loss(alike, teacher, 1.0, own=True)) == pytest.approx(least, rel=1e-5)
    assert float(relational_loss(torch.eye(3), teacher, 1.0, own=True)) > least + 0.05


def test_crops_are_parts_of_their_photograph_at_the_size_asked_for() -> None:
    ramp = np.zeros((60, 80, 3), np.uint8)
    ramp[..., 0] = np.arange(80)
    ramp[..., 1] = np.arange(60)[:, None]
    found = crops([ramp, 255 - ramp], 6, SIZE, seed=1)
    assert found.pictures.shape == (12, SIZE[1], SIZE[0], 3)
    again = crops([ramp, 255 - ramp], 6, SIZE, seed=1)
    assert np.array_equal(found.pictures, again.pictures)
    for picture in found.pictures[:6].astype(int):
        across, down = picture[..., 0].mean(axis=0), picture[..., 1].mean(axis=1)
        # 30 to 100 % of the width, mirrored or not, never upside down, at the photograph's aspect.
        assert 0.25 * 80 < abs(across[-1] - across[0]) <= 80
        assert 0.2 * 60 < down[-1] - down[0] <= 60


def test_a_run_that_shows_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="no rendered scenes"):
        Distiller(installed(), NONE, NONE, Distillation(photographs=0))
    with pytest.raises(UserError, match="no photographs"):
        Distiller(installed(), NONE, NONE, Distillation(scenes=0))
    with pytest.raises(UserError, match="above 0"):
        Distillation(rate=0.0)


@pytest.fixture(scope="module")
def dark() -> Scenes:
    """Photographs by day and as good as by night; the teacher looks at the day."""
    day = np.stack(photographs(8, *SIZE))
    night = (0.12 * day).astype(np.uint8)
    rows = np.arange(8)
    return Scenes(
        np.concatenate([day, night]),
        [np.array([row, row + 8]) for row in rows],
        [np.array([row]) for row in rows],
    )


def test_a_student_comes_to_find_by_night_what_it_knew_by_day(dark: Scenes) -> None:
    settings = Distillation(
        steps=30, scenes=8, photographs=0, augmentation=0.0, moved=0.0, rate=1e-3, blend=1.0
    )
    distiller = Distiller(installed(), dark, NONE, settings)
    losses = [distiller.step(number) for number in range(settings.steps)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1

    def closeness(backbone: object) -> float:
        """Mean cosine of a place by night to itself by day, above that to the other places."""
        aggregation = learnt_aggregation("netvlad", backbone, [list(dark.pictures[:8])], 8)  # type: ignore[arg-type]
        found = TrainableModel(backbone, aggregation).describe(list(dark.pictures))  # type: ignore[arg-type]
        cosines = found[8:] @ found[:8].T
        own = np.diag(cosines)
        return float(own.mean() - (cosines.sum() - own.sum()) / 56)

    assert closeness(distiller.learnt()) > closeness(installed()) + 0.02


def test_the_same_seed_gives_the_same_student_and_the_teacher_stays(dark: Scenes) -> None:
    settings = Distillation(steps=2, scenes=4, photographs=2)
    teacher = installed()
    before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    students = []
    for _ in range(2):
        distiller = Distiller(teacher, dark, crops(list(dark.pictures[:2]), 2, SIZE), settings)
        for number in range(2):
            distiller.step(number)
        students.append(distiller.learnt().weights)
    assert all(torch.equal(students[0][name], students[1][name]) for name in students[0])
    after = teacher.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_shares_of_views_grow_with_what_they_change_by_hand() -> None:
    """Cosines of 1, 0.5 and 0 to the scene: changes of 0, 0.5 and 1, squared 0, 0.25 and 1."""
    target = torch.tensor([1.0, 0.0])[:, None, None].expand(2, 3, 4)
    half = torch.tensor([0.5, 0.75**0.5])[:, None, None].expand(2, 3, 4)
    views = torch.stack([target, half, target.flip(0)])
    assert view_shares(views, target, 2.0) == pytest.approx([0.0, 0.2, 0.8], abs=1e-6)
    assert view_shares(views, target, 0.0) == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert view_shares(target[None], target, 2.0) == pytest.approx([1.0])


def test_blended_weights_lie_between_teacher_and_student(dark: Scenes) -> None:
    found = []
    for blend in (0.0, 0.25, 1.0):
        settings = Distillation(steps=1, scenes=4, photographs=0, blend=blend)
        distiller = Distiller(installed(), dark, NONE, settings)
        distiller.step(0)
        found.append(distiller.learnt().network.state_dict()["blocks.9.project.weight"])
    teacher = installed().network.state_dict()["blocks.9.project.weight"]
    assert torch.equal(found[0], teacher)
    assert not torch.equal(found[2], teacher)
    torch.testing.assert_close(found[1], 0.75 * teacher + 0.25 * found[2])


def test_another_backbone_learns_from_the_teacher(dark: Scenes) -> None:
    student = backbone("ghost", ghost.initial_state(0))
    settings = Distillation(steps=12, scenes=8, photographs=0, augmentation=0.0, moved=0.0)
    distiller = Distiller(
        installed(), dark, NONE, settings, student=calibrate(student, list(dark.pictures[:8]))
    )
    losses = [distiller.step(number) for number in range(settings.steps)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert distiller.learnt().name == student.name
