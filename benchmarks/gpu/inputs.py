"""What the parts measure on: photographs in forty cells, and models that need nothing fetched."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vladmap.atlas.store import AtlasStore
from vladmap.models import learning
from vladmap.models.backbones.vgg import shapes
from vladmap.models.base import resize
from vladmap.models.checkpoints.vocabulary import Vocabulary, to_bytes
from vladmap.models.registry import local_descriptors
from vladmap.models.whitening import Whitening
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES

Pixels = NDArray[np.uint8]

CELLS = 40
MANIFEST = "manifest.csv"
_DIFFERENT = 50  # pictures; the rest are copies that differ in trailing bytes
_PATCH_DIMENSION = 512


@dataclass(frozen=True)
class Scale:
    """How much is measured: numbers of photographs, and the pictures' sizes (width, height)."""

    images: int
    large: int
    size: tuple[int, int]
    large_size: tuple[int, int]
    vectors: int
    dimension: int
    clusters: int
    reduced: int
    batch: int
    features: int
    """Photographs that local features are taken from."""


FULL = Scale(8000, 2000, (640, 480), (2048, 1536), 1_000_000, 512, 64, 512, 64, 64)
SMALL = Scale(32, 16, (160, 120), (320, 240), 20_000, 32, 8, 32, 8, 4)


def pictures(count: int, size: tuple[int, int]) -> list[Pixels]:
    """Seeded pictures (H, W, 3), smooth with grain, none like another.

    Their JPEGs are as large as those of street photographs: some 80 kB at 640 x 480, 470 kB at 2048
    x 1536.
    """
    width, height = size
    generator = np.random.default_rng([count, width])
    found = []
    for _ in range(count):
        across = min(width // 8, 40)
        cells = (across * height // width, across)
        coarse = generator.integers(0, 256, (*cells, 1)) + generator.integers(-8, 9, (*cells, 3))
        grey = np.clip(coarse, 0, 255).astype(np.uint8)
        smooth = Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)
        grain = generator.normal(0, 4 if width < 1000 else 2, (height, width, 1))
        found.append(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8))
    return found


def jpeg(picture: Pixels) -> bytes:
    """A JPEG of quality 90."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def write_jpegs(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """`count` JPEGs, and a manifest that spreads them over forty cells; returns the manifest."""
    folder.mkdir(parents=True)
    files = [jpeg(each) for each in pictures(min(count, _DIFFERENT), size)]
    manifest = folder / MANIFEST
    with manifest.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "latitude", "longitude"])
        for number in range(count):
            name = f"{number:06d}.jpg"
            (folder / name).write_bytes(files[number % len(files)] + number.to_bytes(4, "big"))
            cell = number % CELLS
            rows.writerow([name, 48.0 + 0.02 * (cell // 8), 16.0 + 0.03 * (cell % 8)])
    return manifest


def ingested(manifest: Path, atlas: Path, **options: Any) -> None:
    """Enter the photographs of a manifest into an atlas."""
    settings = BuildOptions(images=str(manifest), atlas=str(atlas), **options)
    STAGES["ingest"].work(Run(AtlasStore.open(str(atlas), create=True), settings))


def _vgg16() -> bytes:
    """Random weights of VGG16, scaled so that activations keep their size."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: (2 / (9 * shape[1])) ** 0.5 * torch.randn(shape, generator=generator)
        if len(shape) == 4
        else torch.zeros(shape)
        for name, shape in shapes().items()
    }
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


BACKBONES: dict[str, Callable[[], bytes] | None] = {"netvlad-lite": None, "netvlad": _vgg16}
"""Each model that is measured, with what makes weights of its backbone where none ship."""


@functools.cache
def weights(model: str, scale: Scale, device: str) -> bytes:
    """A file of the whole model: words of made-up pictures, and random projections.

    Rates do not depend on what the projections are, only on their size.
    """
    made = BACKBONES[model]
    checkpoint = made() if made else None
    features = local_descriptors(model, checkpoint, device).features
    images = [
        resize(picture, features.input_size.target(*scale.size))
        for picture in pictures(16, scale.size)
    ]
    drawn = learning.sample_local_descriptors(model, checkpoint, images, 256, seed=0, device=device)
    words = learning.fit(model, checkpoint, drawn, clusters=scale.clusters)
    length = words.centres.size
    return to_bytes(
        Vocabulary(
            model,
            words.backbone_digest,
            0,
            words.centres,
            whitening=_projection(length, scale.reduced),
            backbone=words.backbone,
            preprocessing=words.preprocessing,
            alpha=words.alpha,
            patch_whitening=_projection(length, min(_PATCH_DIMENSION, length)),
        )
    )


def _projection(length: int, reduced: int) -> Whitening:
    generator = np.random.default_rng([length, reduced])
    rows = generator.normal(size=(reduced, length)).astype(np.float32) / np.float32(length**0.5)
    return Whitening(rows, np.zeros(reduced, np.float32))
