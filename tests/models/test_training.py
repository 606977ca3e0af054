from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.networks import seeded
from tests.models.scenes import (
    Pixels,
    along_a_road,
    scene,
    seen_twice,
    to_learn_from,
    to_validate_on,
)
from tests.models.synthetic import photographs, vgg16_state
from vladmap.models import load_model
from vladmap.models.backbones import ghost, resnet, vgg, vit
from vladmap.models.backbones.registry import Backbone, backbone, installed
from vladmap.models.checkpoints.layouts import Network
from vladmap.models.training.files import BEST, CURVE, LAST
from vladmap.models.training.frozen import Describer
from vladmap.models.training.loop import Trainer
from vladmap.models.training.mining import Tuples
from vladmap.models.training.recipe import RECIPES, Recipe
from vladmap.models.training.steps import Steps, TrainingSet
from vladmap.models.training.trainable import (
    TrainableModel,
    calibrate,
    learnt_aggregation,
    learnt_projection,
    trainable,
)
from vladmap.models.whitening import Whitening
from vladmap.schemas.rejects import UserError
from vladmap.weights.preprocessing import IMAGENET_MEAN, IMAGENET_STD, InputSize

pytestmark = pytest.mark.medium

QUICK = Recipe(
    epochs=2, tuples=4, hardest=2, optimiser="adamw", rate=1e-3, refresh=8, augmentation=1.0
)


def small(found: Backbone, side: int = 64) -> Backbone:
    preprocessing = dataclasses.replace(found.preprocessing, size=InputSize(side, side))
    return dataclasses.replace(found, preprocessing=preprocessing)


def model(kind: str, clusters: int, images: list[Pixels], tuned: int = 4) -> TrainableModel:
    found = small(installed())
    aggregation = learnt_aggregation(kind, found, [images], clusters)
    return TrainableModel(found, aggregation, tuned=tuned)


def trainer(folder: Path, recipe: Recipe, count: int = 16, memory: int = 0) -> Trainer:
    data = to_learn_from(count)
    start = model("netvlad", 4, data.database.read(np.arange(count)), tuned=2)
    return Trainer(start, recipe, data, to_validate_on(6), folder, b"start", memory=memory)


@pytest.mark.parametrize("kind", ["netvlad", "supervlad", "gem"])
def test_what_is_saved_describes_as_what_was_trained(kind: str) -> None:
    images = photographs(6, 90, 64)
    trained = model(kind, 3, images)
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(16, trained.dimension)).astype(np.float32)
    trained.project(Whitening(weight, np.zeros(16, np.float32)))
    optimiser = torch.optim.SGD([*trained.tuned_parameters(), *trained.head_parameters()], 0.01)
    before = trained.describe(images)
    descriptors = trained(torch.from_numpy(np.stack(images)))
    (descriptors @ descriptors.T).sum().backward()
    optimiser.step()
    after = trained.describe(images)
    assert np.abs(after - before).max() > 1e-3
    loaded = load_model(kind, trained.to_bytes()).describe(images)
    assert loaded.shape == (6, 16)
    assert np.abs(loaded - after).max() <= 1e-5


@pytest.mark.parametrize("name", ["efficientnet-lite0", "ghost", "resnet", "vgg", "vit"])
def test_a_network_unfolded_and_folded_again_is_the_same_to_the_last_bit(name: str) -> None:
    if name == "efficientnet-lite0":
        first = installed()
    elif name == "ghost":
        first = backbone(name, seeded(ghost.shapes()))
    elif name == "resnet":
        stems = {f"layer{n}.{b}.conv1.weight": torch.zeros(0) for n in (1, 2, 3) for b in (0, 1)}
        first = backbone(name, seeded(resnet.shapes(stems)))
    elif name == "vgg":
        first = backbone(name, vgg16_state())
    else:
        tokens = {"cls_token": torch.zeros(1, 1, 64), "pos_embed": torch.zeros(1, 5, 64)}
        first = backbone(name, seeded(vit.shapes(tokens | {"blocks.1.x": torch.zeros(0)})))
    unfolded = first.network.unfolded()  # type: ignore[operator]
    assert set(unfolded) == set(first.weights)
    if name != "vit":
        x = torch.randn(1, 3, 64, 48, generator=torch.Generator().manual_seed(0))
        through = first.network.through  # type: ignore[operator]
        with torch.inference_mode():
            assert torch.equal(through(through(x, 0, 4), 4), first.network(x))
    again = backbone(name, unfolded).network.state_dict()
    for key, tensor in first.network.state_dict().items():
        assert torch.equal(tensor, again[key]), key
    assert len(vgg.VGG16(vgg16_state()).stages()) == 13


def test_a_step_lowers_the_loss_of_a_fixed_batch() -> None:
    data = to_learn_from(12)
    for loss in RECIPES:
        recipe = Recipe(loss=loss)
        learner = model("netvlad", 4, data.database.read(np.arange(12)))
        learner.train()
        steps = Steps(Describer(learner), [learner.size], recipe, data)
        others = (np.arange(4)[:, None] + np.arange(1, 5)) % 12
        batch = steps.read(Tuples(np.arange(4), np.arange(4)[:, None], others), 0)
        parameters = [*learner.tuned_parameters(), *learner.head_parameters()]
        optimiser = torch.optim.SGD(parameters, 1e-3)
        values = []
        for _ in range(3):
            optimiser.zero_grad()
            value = steps.loss(batch)
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            values.append(float(value.detach()))
        assert values[0] > values[1] > values[2], loss


def test_only_the_last_blocks_learn(tmp_path: Path) -> None:
    run = trainer(tmp_path, dataclasses.replace(QUICK, epochs=1))
    before = {name: t.clone() for name, t in run.model.backbone.state_dict().items()}
    run.run()
    after = run.model.backbone.state_dict()
    moved = {".".join(n.split(".")[:2]) for n, t in before.items() if not torch.equal(t, after[n])}
    assert moved == {"blocks.9", "blocks.10"}


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("when", "variants", "memory"), [("after an epoch", 0, 0), ("within an epoch", 1, 1 << 20)]
)
def test_a_run_that_was_killed_goes_on_to_the_same_numbers(
    tmp_path: Path, when: str, variants: int, memory: int
) -> None:
    recipe = dataclasses.replace(QUICK, variants=variants)
    trainer(tmp_path / "whole", recipe, memory=memory).run()
    killed = trainer(tmp_path / "killed", recipe, memory=memory)

    def told(row: dict[str, float]) -> None:
        if when == "after an epoch" and row["epoch"] == 1:
            raise Killed

    def watch(what: str, total: int):  # type: ignore[no-untyped-def]
        def advance(steps: int) -> None:
            if when == "within an epoch" and what == "epoch 2: learn":
                raise Killed

        return advance

    killed._watch = watch
    with pytest.raises(Killed):
        killed.run(on_row=told)
    rows: list[dict[str, float]] = []
    trainer(tmp_path / "killed", recipe, memory=memory).run(resume=True, on_row=rows.append)
    assert [row["epoch"] for row in rows] == [2]
    for name in (CURVE, LAST, BEST):
        whole, resumed = (tmp_path / part / name for part in ("whole", "killed"))
        assert whole.read_bytes() == resumed.read_bytes(), name
    assert len((tmp_path / "whole" / CURVE).read_text().splitlines()) == 1 + 3


def test_a_run_is_not_resumed_with_another_recipe_or_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run to resume"):
        trainer(tmp_path, QUICK).run(resume=True)
    trainer(tmp_path, dataclasses.replace(QUICK, epochs=0)).run()
    with pytest.raises(UserError, match=r"rate was 0\.001"):
        trainer(tmp_path, dataclasses.replace(QUICK, epochs=0, rate=0.1)).run(resume=True)


def test_training_finds_places_that_it_has_never_seen(tmp_path: Path) -> None:
    recipe = dataclasses.replace(QUICK, tuples=8, hardest=5, refresh=1000, augmentation=0.0)
    data = to_learn_from(60)
    learner = model("gem", 0, [])
    progress = Trainer(learner, recipe, data, to_validate_on(50), tmp_path).run()
    first, last = progress.curve[0]["recall@1"], progress.curve[progress.best()]["recall@1"]
    assert first < 0.4
    assert last > first + 0.25
    database, queries = seen_twice(1000, 50)
    best = load_model("gem", tmp_path / BEST)
    # Loaded as any model, at the size that it was trained at, it finds as many.
    found = (best.describe(queries) @ best.describe(database).T).argmax(axis=1)
    assert float((found == np.arange(50)).mean()) == pytest.approx(last)


def test_supervlad_learns_by_multi_similarity(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        RECIPES["multi-similarity"], epochs=2, rate=1e-3, schedule="step", augmentation=0.0
    )
    data = to_learn_from(60)
    learner = model("supervlad", 4, data.database.read(np.arange(60)))
    progress = Trainer(learner, recipe, data, to_validate_on(50), tmp_path).run()
    assert progress.curve[progress.best()]["recall@1"] > progress.curve[0]["recall@1"] + 0.2


def test_what_frozen_blocks_gave_changes_nothing_however_much_is_kept(tmp_path: Path) -> None:
    # AdamW would make steps of what rounding leaves where a gradient is nil.
    recipe = dataclasses.replace(QUICK, epochs=3, variants=2, optimiser="sgd")
    found = {}
    for memory in (1, 200_000, 1 << 30):
        run = trainer(tmp_path / str(memory), recipe, memory=memory)
        start = torch.cat([p.detach().flatten() for p in run.model.tuned_parameters()])
        run.run()
        found[memory] = (tmp_path / str(memory) / LAST).read_bytes()
    assert found[1] == found[200_000] == found[1 << 30]
    # And what is kept is not read again: after the variants have been seen, nothing is left to do.
    assert run._describer.unknown([("database", 3, -1, run.model.size)]) == []
    without = trainer(tmp_path / "without", recipe)
    without.run()
    kept = torch.cat([p.detach().flatten() for p in run.model.tuned_parameters()])
    anew = torch.cat([p.detach().flatten() for p in without.model.tuned_parameters()])
    assert (kept - anew).abs().max() <= 1e-3 * (kept - start).abs().max()


def test_accumulated_passes_give_the_gradient_of_one(tmp_path: Path) -> None:
    curves = []
    for accumulate in (1, 4):
        recipe = dataclasses.replace(QUICK, epochs=1, accumulate=accumulate, optimiser="sgd")
        run = trainer(tmp_path / str(accumulate), recipe)
        run.run()
        curves.append(torch.cat([p.detach().flatten() for p in run.model.tuned_parameters()]))
    assert (curves[0] - curves[1]).abs().max() <= 1e-5


def test_it_ends_when_recall_no_longer_rises(tmp_path: Path) -> None:
    recipe = dataclasses.replace(QUICK, epochs=9, patience=2, rate=1e-12, augmentation=0.0)
    progress = trainer(tmp_path, recipe, count=8).run()
    assert progress.best() == 0
    assert progress.epoch == 2


def test_the_rate_falls_as_the_schedule_says() -> None:
    step, cosine = Recipe(rate=0.8), Recipe(rate=0.8, schedule="cosine", epochs=10)
    assert [step.rate_at(epoch, 0.9) for epoch in (0, 4, 5, 10)] == [0.8, 0.8, 0.4, 0.2]
    assert cosine.rate_at(0, 0) == 0.8
    assert cosine.rate_at(4, 1.0) == pytest.approx(0.4)
    assert cosine.rate_at(9, 1.0) == pytest.approx(0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"loss": "l2"}, "unknown loss"),
        ({"tuples": 0}, "must be 1 or more"),
        ({"accumulate": 5}, "fewer tuples"),
        ({"rate": float("nan")}, "rate must be above 0"),
    ],
)
def test_a_recipe_that_cannot_be_is_one_clear_line(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        dataclasses.replace(Recipe(), **wrong)  # type: ignore[arg-type]


def test_queries_without_a_potential_positive_are_not_learnt_from(tmp_path: Path) -> None:
    data = to_learn_from(4)
    moved = data.query_positions + np.array([[0, 0, 0], [0, 9.9, 0], [0, 10.1, 0], [0, 26, 0]])
    far = dataclasses.replace(data, query_positions=moved)
    assert far.usable.tolist() == [0, 1]
    assert [rows.tolist() for rows in far.near] == [[0], [1], [2], []]
    nowhere = dataclasses.replace(data, query_positions=moved + 1e6)
    with pytest.raises(UserError, match="within reach"):
        Trainer(model("gem", 0, []), QUICK, nowhere, to_validate_on(2), tmp_path)


def test_no_image_is_its_own_positive() -> None:
    images = to_learn_from(3).database
    road = along_a_road(3, apart=5)
    data = TrainingSet(images, images, road, road, same=True)
    assert [rows.tolist() for rows in data.potential] == [[1, 2], [0, 2], [0, 1]]


def test_a_projection_starts_as_pca_at_the_scale_of_its_input() -> None:
    descriptors = np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    fitted = learnt_projection(descriptors, 5)
    projected = descriptors @ fitted.weight.T + fitted.bias
    assert np.linalg.norm(projected, axis=1).mean() == pytest.approx(1, abs=1e-5)
    spread = projected.std(axis=0)
    assert spread.max() == pytest.approx(spread.min(), rel=1e-3)


def test_an_untrained_network_is_brought_to_the_scale_of_batch_normalisation() -> None:
    images = [scene(n) for n in range(8)]
    first = small(backbone("ghost", ghost.initial_state(0)))
    scaled = backbone("ghost", calibrate(first, images).weights)
    outputs: list[torch.Tensor] = []
    for layer in scaled.network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _, __, output: outputs.append(output.clone()))
    mean, std = (torch.tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.inference_mode():
        scaled.network((torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255 - mean) / std)
    assert len(outputs) > 50
    for output in outputs:
        assert float(output.mean(dim=(0, 2, 3)).abs().max()) < 1e-3
        assert float((output.std(dim=(0, 2, 3)) - 1).abs().median()) < 1e-3


def test_a_backbone_alone_and_too_many_blocks_are_refused() -> None:
    with pytest.raises(UserError, match="backbone alone"):
        trainable(Network("x", installed()))
    with pytest.raises(UserError, match="12 stages"):
        TrainableModel(installed(), learnt_aggregation("gem", installed(), []), tuned=13)
