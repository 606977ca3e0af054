"""Local features of photographs in batches of one size, as a GPU wants them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from vladmap.atlas.photographs import Photo
from vladmap.features.base import LocalFeatureExtractor, LocalFeatures
from vladmap.models.memory import within_memory

log = logging.getLogger("vladmap")

TOGETHER = 16
"""Photographs of one size that a network is given at once."""

_BYTES_HELD = 512 << 20
"""Pixels that wait for their batch to be filled, at most."""


class FeatureBatches:
    """Extracts features by `extractor`, photographs of one size together.

    What does not fit the GPU's memory is halved, and comes halved from then on.
    """

    def __init__(self, extractor: LocalFeatureExtractor) -> None:
        self._extractor, self._limit = extractor, TOGETHER

    def of(self, photos: Iterable[Photo]) -> Iterator[tuple[Photo, LocalFeatures | None]]:
        """Each photograph with its features, None where it has no pixels; not in their order."""
        waiting: dict[tuple[int, ...], list[Photo]] = {}
        held = 0
        for photo in photos:
            if photo.pixels is None:
                yield photo, None
                continue
            batch = waiting.setdefault(photo.pixels.shape, [])
            batch.append(photo)
            held += photo.pixels.nbytes
            while len(batch) == TOGETHER or held > _BYTES_HELD:
                full = waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
                held -= sum(_bytes(each) for each in full)
                yield from self._extracted(full)
                batch = waiting.get(photo.pixels.shape, [])
        for batch in waiting.values():
            yield from self._extracted(batch)

    def _extracted(self, photos: list[Photo]) -> Iterator[tuple[Photo, LocalFeatures]]:
        images = [photo.pixels for photo in photos if photo.pixels is not None]
        found, limit = within_memory(self._extractor.extract_batch, images, self._limit)
        if limit < min(self._limit, len(images)):
            log.warning("features: the GPU has room for %d photographs at a time", limit)
            self._limit = limit
        yield from zip(photos, found, strict=True)


def _bytes(photo: Photo) -> int:
    return 0 if photo.pixels is None else photo.pixels.nbytes
