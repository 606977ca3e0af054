"""What a model learns from a collection's own photographs: its visual words."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models.base import Floats, Pixels
from models.checkpoints import CheckpointSource
from models.local import sample
from models.netvlad import initial_alpha
from models.registry import DEFAULT_CLUSTERS, local_descriptors, spare_clusters
from models.vocabulary import Vocabulary
from retrieval.kmeans import kmeans


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

    `clusters` are as many as the model is published with where none are given. The order of the
    rows does not matter. Raises UserError where there are fewer rows than clusters.
    """
    source = local_descriptors(model_name, checkpoint)
    if descriptors.shape[1] != source.features.dimension:
        raise ValueError(
            f"{model_name} has local descriptors of {source.features.dimension} numbers, "
            f"got {descriptors.shape[1]}"
        )
    wanted = (clusters or DEFAULT_CLUSTERS[model_name]) + spare_clusters(model_name)
    centres = kmeans(descriptors, wanted, seed)
    alpha = 0.0
    if wanted > 1:
        alpha = initial_alpha(torch.from_numpy(descriptors), torch.from_numpy(centres))
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
