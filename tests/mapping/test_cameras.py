import numpy as np
import pytest

from mapping.cameras import camera_key, initial_camera, trial_subset


def test_images_share_a_camera_by_maker_model_size_and_focal_length() -> None:
    key = camera_key("GoPro", "HERO9 Black", 5184, 3888, 2160.4)
    assert key == "GoPro HERO9 Black 5184x3888 2160px"
    assert camera_key("GoPro", "HERO9 Black", 3888, 5184, 2160.4) != key
    assert camera_key(None, None, 1024, 768, None) == "unknown camera 1024x768 unknown"
    assert camera_key(None, " ", 1024, 768, float("nan")) == "unknown camera 1024x768 unknown"


def test_exif_gives_the_focal_length_or_the_long_side_does() -> None:
    known = initial_camera(640, 480, 425.0)
    assert (known["params"], known["has_prior_focal_length"]) == ([425.0, 320.0, 240.0], True)
    assumed = initial_camera(480, 640, None)
    assert assumed["params"] == pytest.approx([768.0, 240.0, 320.0])
    assert not assumed["has_prior_focal_length"]


def test_the_trial_subset_grows_from_the_heaviest_pair_along_the_heaviest_links() -> None:
    pair_a, pair_b = ["a", "b", "c", "x"], ["b", "c", "d", "y"]
    weight = np.array([9.0, 5.0, 3.0, 8.0])
    assert trial_subset(pair_a, pair_b, weight, 3) == ["a", "b", "c"]
    assert trial_subset(pair_a, pair_b, weight, 10) == ["a", "b", "c", "d"]
    assert trial_subset([], [], np.zeros(0)) == []
