"""What a model learns from a collection's own photographs: its visual words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vladmap.models.aggregations.netvlad import initial_alpha
from vladmap.models.base import Floats, Pixels
from vladmap.models.checkpoints.vocabulary import Vocabulary
from vladmap.models.local import sample
from vladmap.models.registry import (
    check_learns,
    default_clusters,
    local_descriptors,
    spare_clusters,
)
from vladmap.retrieval.bovw import inverse_document_frequency, word_counts
from vladmap.retrieval.kmeans import kmeans
from vladmap.weights.reading import CheckpointSource


def sample_local_descriptors(
    model_name: str,
    checkpoint: CheckpointSource | None,
    images: Sequence[Pixels],
    per_image: int,
    seed: int,
    device: str = "cpu",
) -> Floats:
    """(M, D) local descriptors to learn centres from, at most `per_image` of each image.

    An image's draw depends on `seed` and its pixels alone. A caller with many batches loads the
    source once by `models.registry.local_descriptors` and calls `models.local.sample`.
    """
    source = local_descriptors(model_name, checkpoint, device=device)
    return sample(source.features, images, per_image, seed)


def fit(
    model_name: str,
    checkpoint: CheckpointSource | None,
    descriptors: Floats,
    clusters: int | None = None,
    seed: int = 0,
) -> Vocabulary:
    """Centres by k-means on (M, D) local descriptors that `sample_local_descriptors` drew.

    `clusters` are as many as `default_clusters` says where none are given. The order of the
    rows does not matter. Raises UserError where there are fewer rows than clusters, or for a model
    that is made of none.
    """
    check_learns(model_name)
    source = local_descriptors(model_name, checkpoint)
    if descriptors.shape[1] != source.features.dimension:
        raise ValueError(
            f"{model_name} has local descriptors of {source.features.dimension} numbers, "
            f"got {descriptors.shape[1]}"
        )
    wanted = (clusters or default_clusters(model_name)) + spare_clusters(model_name)
    centres = kmeans(descriptors, wanted, seed)
    alpha = 0.0
    if wanted > 1:
        found = initial_alpha(torch.from_numpy(descriptors), torch.from_numpy(centres))
        # A sum over the rows in whatever order they come: its last digits are no one's.
        alpha = float(np.float32(found))
    own = source.own
    return Vocabulary(
        model_name,
        source.features.digest,
        seed,
        centres,
        backbone=own.weights if own else {},
        preprocessing=own.preprocessing if own else None,
        alpha=alpha,
    )


def images_with_words(vocabulary: Vocabulary, local: Iterable[Floats]) -> NDArray[np.int64]:
    """(1 + K,): how many images there are in `local`, each (n, d), and how many have each word.

    Such counts of parts of a collection add up to those of the whole.
    """
    total = np.zeros(1 + len(vocabulary.centres), np.int64)
    for descriptors in local:
        total[0] += 1
        if len(descriptors):
            total[1:] += word_counts(descriptors, vocabulary.centres) > 0
    return total


def weigh_words(vocabulary: Vocabulary, counts: NDArray[np.int64]) -> Vocabulary:
    """The vocabulary of a bag of words with its weights, from the sum of `images_with_words`."""
    idf = inverse_document_frequency(counts[1:], int(counts[0]))
    return dataclasses.replace(vocabulary, idf=idf)
