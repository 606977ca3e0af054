from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.models.synthetic import photographs
from vladmap.models import load_model
from vladmap.models.registry import is_complete, local_descriptors, shipped_weights
from vladmap.models.thumbnail import patch_normalised
from vladmap.schemas.rejects import UserError


def by_definition(image: np.ndarray) -> np.ndarray:
    """Patch by patch in float64, of an image that has the size already."""
    grey = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    out = np.zeros_like(grey)
    for top in range(0, 32, 8):
        for left in range(0, 64, 8):
            patch = grey[top : top + 8, left : left + 8]
            if patch.std() >= 2:
                out[top : top + 8, left : left + 8] = (patch - patch.mean()) / patch.std()
    flat = out.ravel()
    return flat / np.linalg.norm(flat) if flat.any() else flat


def test_it_is_its_definition_patch_by_patch_in_float64() -> None:
    images = [np.asarray(Image.fromarray(one).resize((64, 32))) for one in photographs(5, 80, 60)]
    images[1] = images[1].copy()
    images[1][:8, :16] = 90  # two patches without contrast
    found = load_model("thumbnail").describe(images)
    assert found.dtype == np.float32
    for row, image in zip(found, images, strict=True):
        assert np.abs(row - by_definition(image)).max() < 1e-6


def test_a_brighter_picture_of_more_contrast_has_the_same_descriptor() -> None:
    image = photographs(1, 64, 32)[0]
    other = (40 + 0.5 * image.astype(np.float64)).round().astype(np.uint8)
    one, two = load_model("thumbnail").describe([image, other])
    assert one @ two > 0.999


def test_a_black_picture_with_noise_is_no_evidence() -> None:
    noise = np.random.default_rng(0).normal(3, 1, (32, 64, 3)).clip(0, 255).astype(np.uint8)
    black = np.zeros((32, 64, 3), np.uint8)
    half = photographs(1, 64, 32)[0].copy()
    half[:, :32] = noise[:, :32]
    dark, none, seen = load_model("thumbnail").describe([noise, black, half])
    assert not dark.any()
    assert not none.any()
    assert not seen.reshape(32, 64)[:, :32].any()
    assert np.linalg.norm(seen) == pytest.approx(1)


def test_a_patch_is_without_contrast_below_two_grey_levels() -> None:
    wave = np.tile([1.0, -1.0], (1, 8, 4)).astype(np.float32)
    assert np.abs(patch_normalised(100 + 2.01 * wave)).min() == pytest.approx(1, abs=1e-4)
    assert not patch_normalised(100 + 1.99 * wave).any()


def test_an_atlas_keeps_a_file_of_it_that_no_other_model_takes() -> None:
    data = shipped_weights("thumbnail")
    assert data is not None
    assert is_complete("thumbnail", data)
    image = photographs(1, 64, 32)
    assert np.array_equal(
        load_model("thumbnail", data).describe(image), load_model("thumbnail").describe(image)
    )
    with pytest.raises(UserError):
        load_model("gem", data)
    with pytest.raises(UserError, match="needs no checkpoint"):
        load_model("thumbnail", shipped_weights("gem"))
    with pytest.raises(UserError, match="no local descriptors"):
        local_descriptors("thumbnail")
