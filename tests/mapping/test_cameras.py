import pytest

from vladmap.mapping.cameras import Trial, camera_key, initial_camera, prior_stands


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


def _trial(model: str, focal: float, score: float) -> Trial:
    camera = {"model": model, "width": 640, "height": 480, "params": [focal, 320.0, 240.0, 0.0]}
    return Trial(camera, 11, int(score), 0.4, score)


def test_exifs_focal_length_stands_by_its_own_map_or_by_one_refined_from_it() -> None:
    known, best = initial_camera(640, 480, 425.0), _trial("SIMPLE_RADIAL_FISHEYE", 810.0, 1000.0)
    half, whole = _trial("SIMPLE_RADIAL", 425.0, 600.0), _trial("SIMPLE_RADIAL", 425.0, 900.0)
    assert prior_stands(known, [best, whole])
    assert not prior_stands(known, [best, half])
    assert prior_stands(known, [best, _trial("SIMPLE_RADIAL", 418.0, 950.0), half])
    assert not prior_stands(known, [best, _trial("SIMPLE_RADIAL", 948.0, 950.0), half])
    assert not prior_stands(known, [best])
    assert not prior_stands(initial_camera(640, 480, None), [best, whole])
