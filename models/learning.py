"""What a model learns from a collection's own photographs: visual words, and projections by PCA.

Builds (`transforms.learn` distributes the steps below over workers), evaluations (`learn` runs the
steps in one process) and training share this implementation. All sample by the same rule: the
photographs whose names have the lowest digests (`lowest_digests`), and from each of the first of
these as many local descriptors as `LearningSettings` says, drawn by the seed and the photograph's
pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vladmap.models.aggregated import AggregatedModel
from vladmap.models.aggregations.netvlad import initial_alpha
from vladmap.models.base import DescriptorModel, Floats, Pixels
from vladmap.models.checkpoints.vocabulary import Vocabulary, reduce, to_bytes
from vladmap.models.local import LocalDescriptors, sample
from vladmap.models.registry import (
    check_learns,
    default_clusters,
    is_complete,
    load_model,
    local_descriptors,
    shipped_weights,
    spare_clusters,
)
from vladmap.models.whitening import (
    IMAGES_PER_DIMENSION,
    IMAGES_PER_REDUCED,
    fit_whitening_of_parts,
)
from vladmap.photos.ids import image_id
from vladmap.retrieval.bovw import inverse_document_frequency, word_counts
from vladmap.retrieval.kmeans import kmeans
from vladmap.schemas.rejects import UserError
from vladmap.weights.reading import CheckpointSource

WORD_IMAGES = 256
"""Photographs that visual words are learnt from."""

DESCRIPTORS_AN_IMAGE = 256
"""Local descriptors that are drawn from each of them."""

PART_IMAGES = 16
"""Photographs of a sample that are computed together. The patches drawn from an image depend on its
place in the part, so this number is the same everywhere."""

Target = Callable[[int, int], tuple[int, int]]
"""(width, height) of a photograph -> the (width, height) at which to decode it for a model."""

Part = tuple[int, list[Pixels]]
"""A part of a sample: the place of its first photograph, and the pixels of those that can be read.
"""


@dataclass(frozen=True)
class LearningSettings:
    """What is learnt for the model `model`, and from how many photographs.

    `clusters` words (0: the model's default) are learnt from `descriptors_an_image` local
    descriptors of each of the first `word_images` photographs of the sample, rounded up to whole
    parts. The following are learnt from the whole sample, where not 0: `whiten`, the dimension of
    PCA-whitened descriptors; `dimension`, to which `fit_reduction` reduces descriptors;
    `patch_dimension`, the dimension of PCA-whitened patches of `patch_size` cells. The backbone is
    that of `checkpoint`, or the one that ships with vladmap.
    """

    model: str
    checkpoint: CheckpointSource | None = None
    clusters: int = 0
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    whiten: int = 0
    dimension: int = 0
    patch_size: int = 0
    patch_dimension: int = 0
    word_images: int = WORD_IMAGES
    descriptors_an_image: int = DESCRIPTORS_AN_IMAGE

    @property
    def words(self) -> int:
        """The number of visual words; it may be larger where descriptors are reduced afterwards."""
        shortened = (self.dimension > 0 or self.whiten > 0) and not self.patch_size
        return self.clusters or default_clusters(self.model, shortened)

    @property
    def sample_images(self) -> int:
        """The number of photographs in the sample, if the collection has as many."""
        return max(
            self.word_images,
            IMAGES_PER_DIMENSION * self.whiten,
            IMAGES_PER_REDUCED * self.dimension,
        )

    def patches_an_image(self, images: int) -> int:
        """The number of patches to draw from each of `images` photographs for their whitening."""
        # A fifth more than needed: some photographs cannot be read.
        return -(-IMAGES_PER_DIMENSION * 6 * self.patch_dimension // (5 * images))


def lowest_digests(names: Sequence[str], count: int) -> list[int]:
    """Rows of the `count` names whose digests (`photos.ids.image_id`) are lowest, by rising digest.

    Digests are pseudo-random, so this is a random sample, and the same one in every run.
    """
    return sorted(range(len(names)), key=lambda row: image_id(names[row]))[:count]


def complete_weights(
    name: str, checkpoint: CheckpointSource | None, learn: bool = False
) -> bytes | None:
    """The file of the whole model `name`; None where its words must be learnt first.

    `learn`: learn words even if the checkpoint has some. Raises UserError where `checkpoint` does
    not fit the model.
    """
    if checkpoint is None:
        return shipped_weights(name)
    if learn or not is_complete(name, checkpoint):
        return None
    return checkpoint if isinstance(checkpoint, bytes) else Path(checkpoint).read_bytes()


class Centres(NamedTuple):
    """Centres (K, D) of visual words, and the sharpness `alpha` of soft assignment that suits the
    sample that they were learnt from (0 where there is one centre alone)."""

    rows: Floats
    alpha: float


def learn_centres(descriptors: Floats, count: int, seed: int, device: str = "cpu") -> Centres:
    """`count` centres by k-means on (M, D) local descriptors; the order of rows does not matter.

    Raises UserError where there are fewer rows than centres.
    """
    centres = kmeans(descriptors, count, seed, device)
    if count == 1:
        return Centres(centres, 0.0)
    alpha = initial_alpha(torch.from_numpy(descriptors), torch.from_numpy(centres))
    # The last digits of this sum over the rows depend on their order: they are rounded off.
    return Centres(centres, float(np.float32(alpha)))


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
    device: str = "cpu",
) -> Vocabulary:
    """Centres by k-means on (M, D) local descriptors that `sample_local_descriptors` drew.

    `clusters` is by default that of `default_clusters`. The order of the rows does not matter.
    `device` is used where FAISS has a GPU.
    Raises UserError where there are fewer rows than clusters, or for a model without words.
    """
    check_learns(model_name)
    source = local_descriptors(model_name, checkpoint)
    if descriptors.shape[1] != source.features.dimension:
        raise ValueError(
            f"{model_name} has local descriptors of {source.features.dimension} numbers, "
            f"got {descriptors.shape[1]}"
        )
    count = (clusters or default_clusters(model_name)) + spare_clusters(model_name)
    centres = learn_centres(descriptors, count, seed, device)
    own = source.own
    return Vocabulary(
        model_name,
        source.features.digest,
        seed,
        centres.rows,
        backbone=own.weights if own else {},
        preprocessing=own.preprocessing if own else None,
        alpha=centres.alpha,
    )


def images_with_words(vocabulary: Vocabulary, local: Iterable[Floats]) -> NDArray[np.int64]:
    """(1 + K,): the number of images, and for each word the number of images that contain it.

    `local` has the (n, d) local descriptors of each image. The counts of parts of a collection add
    up to those of the whole.
    """
    total = np.zeros(1 + len(vocabulary.centres), np.int64)
    for descriptors in local:
        total[0] += 1
        if len(descriptors):
            total[1:] += word_counts(descriptors, vocabulary.centres) > 0
    return total


def weigh_words(vocabulary: Vocabulary, counts: NDArray[np.int64]) -> Vocabulary:
    """The vocabulary with its idf weights, from the sum of `images_with_words`."""
    idf = inverse_document_frequency(counts[1:], int(counts[0]))
    return dataclasses.replace(vocabulary, idf=idf)


def draw_patches(
    model: DescriptorModel,
    images: Sequence[Pixels],
    size: int,
    each: int,
    seed: int,
    start: int = 0,
) -> Floats:
    """(M, K * D) descriptors of patches of `size` cells, `each` from every image.

    They are drawn by the seed and the image's place in the sample, where the first is at `start`.
    """
    assert isinstance(model, AggregatedModel)
    drawn = []
    for place, (_, patches) in enumerate(model.describe_each(images, (size,))):
        rows = patches.descriptors[0][0]
        order = np.random.default_rng([seed, start + place]).permutation(len(rows))
        drawn.append(rows[np.sort(order[:each])])
    return np.concatenate(drawn)


def learn(
    settings: LearningSettings, read: Callable[[int, Target, str], Iterator[Part]], images: int
) -> Vocabulary:
    """Learn words, their weights, whitenings and the reduction in this process.

    `read(count, target, what)` yields the first `count` photographs of the sample in parts of
    PART_IMAGES, decoded at `target`; `what` names the step for a progress bar. `images` is the size
    of the sample. The result equals that of `transforms.learn` to the last bit. Raises UserError
    where no photograph can be read, or there are too few to learn from.
    """
    source = local_descriptors(settings.model, settings.checkpoint, settings.device)
    vocabulary = _learn_words(settings, source.features, read)
    if settings.model == "bovw":
        counts = [
            images_with_words(vocabulary, source.features.extract(pixels))
            for _, pixels in read(images, source.features.input_size.target, "weigh words")
        ]
        vocabulary = weigh_words(vocabulary, np.sum(counts, axis=0))
    # Before descriptors are shortened: patches are projected from their full length.
    if settings.patch_dimension:
        model, each = _load(settings, vocabulary), settings.patches_an_image(images)
        patches = [
            draw_patches(model, pixels, settings.patch_size, each, settings.seed, start)
            for start, pixels in read(images, model.input_long_side, "learn patches")
        ]
        fitted = fit_whitening_of_parts(patches, settings.patch_dimension, "patches", settings.seed)
        vocabulary = dataclasses.replace(vocabulary, patch_whitening=fitted)
    if settings.whiten:
        fitted = fit_whitening_of_parts(
            _describe(settings, vocabulary, read, images), settings.whiten, "images", settings.seed
        )
        vocabulary = dataclasses.replace(vocabulary, whitening=fitted)
    if settings.dimension:
        rows = np.concatenate(_describe(settings, vocabulary, read, images))
        vocabulary = reduce(vocabulary, rows, settings.dimension)
    return vocabulary


def _learn_words(
    settings: LearningSettings,
    features: LocalDescriptors,
    read: Callable[[int, Target, str], Iterator[Part]],
) -> Vocabulary:
    whole = -(-settings.word_images // PART_IMAGES) * PART_IMAGES
    drawn = [
        sample(features, pixels, settings.descriptors_an_image, settings.seed)
        for _, pixels in read(whole, features.input_size.target, "learn words")
    ]
    if not drawn:
        raise UserError("no photograph of the database can be read: there is nothing to learn from")
    return fit(
        settings.model,
        settings.checkpoint,
        np.concatenate(drawn),
        settings.words,
        settings.seed,
        settings.device,
    )


def _describe(
    settings: LearningSettings,
    vocabulary: Vocabulary,
    read: Callable[[int, Target, str], Iterator[Part]],
    images: int,
) -> list[Floats]:
    """Global descriptors (n, D) of each part of the sample, by the model learnt so far."""
    model = _load(settings, vocabulary)
    parts = read(images, model.input_long_side, "learn the projection")
    return [model.describe(pixels) for _, pixels in parts]


def _load(settings: LearningSettings, vocabulary: Vocabulary) -> DescriptorModel:
    return load_model(settings.model, to_bytes(vocabulary), settings.device, settings.precision)
