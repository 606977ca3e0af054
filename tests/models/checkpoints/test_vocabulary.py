from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.synthetic import photographs, saved, vgg16_state
from vladmap.models import learning, load_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.backbones.registry import installed
from vladmap.models.checkpoints import vocabulary
from vladmap.models.checkpoints.vocabulary import Vocabulary, to_bytes
from vladmap.models.kinds import KINDS
from vladmap.models.local import sample
from vladmap.models.registry import default_clusters
from vladmap.models.training.trainable import learnt_aggregation
from vladmap.models.whitening import fit_whitening
from vladmap.schemas.rejects import UserError


@pytest.fixture(scope="module")
def learnt() -> Vocabulary:
    images = photographs(4, 320, 240)
    drawn = learning.sample_local_descriptors("netvlad-lite", None, images, 100, seed=0)
    return learning.fit("netvlad-lite", None, drawn, clusters=16, seed=0)


def test_a_sample_is_the_same_whoever_draws_it() -> None:
    images = photographs(3, 320, 240)
    together = learning.sample_local_descriptors("netvlad-lite", None, images, 50, seed=1)
    apart = [
        learning.sample_local_descriptors("netvlad-lite", None, [image], 50, seed=1)
        for image in images
    ]
    assert together.shape == (150, 112)
    assert np.abs(together - np.concatenate(apart)).max() < 1e-5
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(150), abs=1e-5)


def test_another_seed_draws_other_descriptors() -> None:
    images = photographs(1, 320, 240)
    one, other = (
        learning.sample_local_descriptors("netvlad-lite", None, images, 20, seed=seed)
        for seed in (0, 1)
    )
    assert not np.array_equal(one, other)


def test_an_image_of_few_local_descriptors_gives_all_of_them() -> None:
    class Two:
        dimension = 3
        input_size = None
        digest = ""

        def extract(self, images: list[np.ndarray]) -> list[np.ndarray]:
            return [np.eye(3, dtype=np.float32)[:2] for _ in images]

    drawn = sample(Two(), photographs(2, 8, 8), 5, seed=0)  # type: ignore[arg-type]
    assert drawn.tolist() == [[1, 0, 0], [0, 1, 0]] * 2


def test_a_vocabulary_survives_its_file(learnt: Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.safetensors"
    path.write_bytes(vocabulary.to_bytes(learnt))
    again = vocabulary.from_bytes(path.read_bytes())
    assert np.array_equal(again.centres, learnt.centres)
    assert vocabulary.to_bytes(again) == vocabulary.to_bytes(learnt)
    by_path = load_model("netvlad-lite", path)
    by_bytes = load_model("netvlad-lite", vocabulary.to_bytes(learnt))
    assert by_path.spec == by_bytes.spec


@pytest.mark.slow
def test_the_same_sample_gives_the_same_bytes_in_any_process_and_order(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np; from vladmap.models import learning;"
        "from vladmap.models.checkpoints import vocabulary;"
        "x = np.random.default_rng(0).normal(size=(5000, 112)).astype(np.float32);"
        "x = x[np.random.default_rng(int(sys.argv[1])).permutation(5000)];"
        "open(sys.argv[2], 'wb').write(vocabulary.to_bytes(learning.fit('netvlad-lite', None, x)))"
    )
    written = []
    for run, threads in enumerate(("1", "2", "4")):
        path = tmp_path / str(run)
        subprocess.run(
            [sys.executable, "-c", program, str(run), str(path)],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": str(run)},
        )
        written.append(path.read_bytes())
    assert written[0] == written[1] == written[2]


def test_the_fingerprint_follows_the_weights(learnt: Vocabulary) -> None:
    other = Vocabulary(learnt.model, learnt.backbone_digest, learnt.seed, learnt.centres + 0.01)
    specs = [load_model("netvlad-lite", vocabulary.to_bytes(v)).spec for v in (learnt, other)]
    assert specs[0].fingerprint != specs[1].fingerprint


def test_a_vocabulary_is_refused_by_another_model(learnt: Vocabulary) -> None:
    with pytest.raises(UserError, match="vocabulary for netvlad-lite, not for vlad"):
        load_model("vlad", vocabulary.to_bytes(learnt))


def test_a_vocabulary_of_another_backbone_is_refused(learnt: Vocabulary) -> None:
    foreign = Vocabulary("netvlad-lite", "0" * 32, 0, learnt.centres)
    with pytest.raises(UserError, match="other weights of the backbone"):
        load_model("netvlad-lite", vocabulary.to_bytes(foreign))


def test_words_are_twice_as_many_where_descriptors_are_reduced_and_nowhere_else() -> None:
    assert [default_clusters("netvlad-lite", reduced) for reduced in (True, False)] == [128, 64]
    assert [default_clusters("netvlad", reduced) for reduced in (True, False)] == [64, 64]


def test_fewer_descriptors_than_clusters_are_refused() -> None:
    with pytest.raises(UserError, match="128 clusters need at least as many"):
        learning.fit("netvlad-lite", None, np.ones((10, 112), np.float32))


def test_whitening_travels_in_the_vocabulary(learnt: Vocabulary) -> None:
    descriptors = np.random.default_rng(0).normal(size=(50, 16 * 112)).astype(np.float32)
    whitened = dataclasses.replace(learnt, whitening=fit_whitening(descriptors, 5))
    model = load_model("netvlad-lite", vocabulary.to_bytes(whitened))
    found = model.describe(photographs(2, 320, 240))
    assert found.shape == (2, 5)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_a_vgg16_backbone_travels_with_the_centres_learnt_on_it() -> None:
    backbone = saved({f"features.{name}": tensor for name, tensor in vgg16_state().items()})
    images = photographs(2, 320, 64)
    drawn = learning.sample_local_descriptors("netvlad", backbone, images, 40, seed=0)
    learnt = learning.fit("netvlad", backbone, drawn, clusters=4)
    model = load_model("netvlad", vocabulary.to_bytes(learnt))
    assert model.describe(images).shape == (2, 4 * 512)
    assert torch.equal(learnt.backbone["0.weight"], vgg16_state()["0.weight"])


def test_a_model_that_is_made_of_no_words_is_not_made_of_netvlads(learnt: Vocabulary) -> None:
    """Issue 19, 12: whatever was not SuperVLAD became NetVLAD, and was called by the other name."""
    data = to_bytes(dataclasses.replace(learnt, model="gem"))
    with pytest.raises(UserError, match="gem learns no words"):
        load_model("gem", checkpoint=data)
    with pytest.raises(UserError, match="gem learns no words"):
        learning.fit("gem", None, np.eye(8, 112, dtype=np.float32), clusters=2)


def test_every_model_of_learnt_words_has_the_aggregation_that_its_name_promises(
    monkeypatch: pytest.MonkeyPatch, learnt: Vocabulary
) -> None:
    """Issue 19, 12."""
    kind = KINDS[learnt.model]
    for name, expected in (("netvlad", "NetVLAD"), ("supervlad", "SuperVLAD")):
        monkeypatch.setitem(KINDS, learnt.model, dataclasses.replace(kind, aggregation=name))
        model = load_model(learnt.model, checkpoint=to_bytes(learnt))
        assert isinstance(model, AggregatedModel)
        assert type(model._aggregation).__name__ == expected
    monkeypatch.setitem(KINDS, learnt.model, dataclasses.replace(kind, aggregation="gem"))
    with pytest.raises(UserError, match="learns no words"):
        load_model(learnt.model, checkpoint=to_bytes(learnt))


def test_an_unknown_aggregation_is_no_other_one() -> None:
    """Issue 19, 12, its kind: what is not known falls through to nothing."""
    with pytest.raises(ValueError, match="unknown aggregation 'vlad'"):
        learnt_aggregation("vlad", installed(), [])
