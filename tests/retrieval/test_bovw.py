from __future__ import annotations

import math

import numpy as np
import pytest

from vladmap.models import learning, load_model
from vladmap.models.checkpoints import vocabulary
from vladmap.models.local import RootSiftFeatures
from vladmap.retrieval.bovw import bag_of_words, inverse_document_frequency, word_counts
from vladmap.schemas.rejects import UserError


def test_tf_idf_is_its_definition_in_loops() -> None:
    generator = np.random.default_rng(0)
    words = generator.normal(size=(7, 5)).astype(np.float32)
    images = [generator.normal(size=(n, 5)).astype(np.float32) for n in (12, 3, 30, 9)]
    nearest = [
        [
            min(
                range(7),
                key=lambda k: sum((float(v) - w) ** 2 for v, w in zip(x, words[k], strict=True)),
            )
            for x in image.tolist()
        ]
        for image in images
    ]
    counts = [word_counts(image, words) for image in images]
    idf = inverse_document_frequency(np.sum([c > 0 for c in counts], axis=0), len(images))
    for one, histogram in zip(nearest, counts, strict=True):
        expected = []
        for k in range(7):
            having = sum(k in other for other in nearest)
            expected.append(one.count(k) / len(one) * math.log(4 / max(having, 1)))
        length = math.sqrt(sum(v * v for v in expected))
        assert bag_of_words(histogram, idf) == pytest.approx(
            [v / length for v in expected], rel=1e-5
        )


def test_a_word_that_every_image_has_says_nothing() -> None:
    idf = inverse_document_frequency(np.array([4, 1, 0]), 4)
    assert idf == pytest.approx([0, math.log(4), math.log(4)])
    assert bag_of_words(np.array([9, 0, 0]), idf).tolist() == [0, 0, 0]
    assert bag_of_words(np.zeros(3, np.int64), idf).tolist() == [0, 0, 0]


def test_the_model_counts_the_words_of_an_images_rootsift() -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (3, 12, 16), dtype=np.uint8)
    images = [
        np.kron(one, np.ones((20, 20), np.uint8)).repeat(3).reshape(240, 320, 3) for one in blocks
    ]
    features = RootSiftFeatures()
    local = features.extract(images)
    learnt = learning.fit("bovw", None, np.concatenate(local), clusters=12)
    with pytest.raises(UserError, match="no weights of its words"):
        load_model("bovw", vocabulary.to_bytes(learnt))
    parts = [learning.images_with_words(learnt, [one]) for one in local]
    learnt = learning.weigh_words(learnt, np.sum(parts, axis=0))
    vectors = load_model("bovw", vocabulary.to_bytes(learnt)).describe([*images, images[0] * 0])
    assert learnt.idf is not None
    for row, one in zip(vectors, local, strict=False):
        assert row == pytest.approx(bag_of_words(word_counts(one, learnt.centres), learnt.idf))
    assert not vectors[3].any()
