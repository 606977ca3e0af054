"""The weights that ship: small, sound, with their card, and worth it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.synthetic import photographs
from vladmap.models import learning, load_model
from vladmap.models.aggregations.netvlad import NetVLAD
from vladmap.models.backbones.registry import installed
from vladmap.models.checkpoints import vocabulary
from vladmap.models.checkpoints.layouts import network
from vladmap.models.registry import WEIGHTS, is_complete, local_descriptors
from vladmap.weights.reading import read_weights

FILES = sorted(WEIGHTS.glob("*.safetensors"))


def test_each_file_is_at_most_ten_megabytes_and_has_its_card() -> None:
    assert [path.stem for path in FILES] == ["netvlad-lite"]
    for path in FILES:
        assert path.stat().st_size <= 10_000_000
        card = path.with_suffix(".md").read_text()
        for word in ("licence", "seeds", "vladmap distil", "Gardens Point", "loses"):
            assert word in card


def test_the_file_is_a_whole_model_of_at_most_1024_numbers() -> None:
    path = WEIGHTS / "netvlad-lite.safetensors"
    assert is_complete("netvlad-lite", path)
    net = network(read_weights(path))
    assert isinstance(net.aggregation, NetVLAD)
    model = load_model("netvlad-lite", path)
    assert model.spec.dimension == 960
    found = model.describe(photographs(2, 320, 240))
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(2), abs=1e-5)


def test_the_default_learns_its_words_on_the_backbone_that_ships() -> None:
    images = photographs(4, 200, 150)
    trained, plain = (
        local_descriptors(name).features for name in ("netvlad-lite", "netvlad-imagenet")
    )
    assert plain.digest == installed().features().digest
    assert trained.digest != plain.digest
    drawn = learning.sample_local_descriptors("netvlad-lite", None, images, 60, seed=0)
    learnt = learning.fit("netvlad-lite", None, drawn, clusters=8)
    # What vladmap carries itself is not carried by every vocabulary.
    assert learnt.backbone == {}
    assert load_model("netvlad-lite", vocabulary.to_bytes(learnt)).spec.dimension == 8 * 112


def test_what_a_checkpoint_aggregates_by_does_not_matter_where_words_are_learnt() -> None:
    path = WEIGHTS / "netvlad-lite.safetensors"
    source = local_descriptors("supervlad", path)
    assert source.features.dimension == 112
    assert source.own is not None
