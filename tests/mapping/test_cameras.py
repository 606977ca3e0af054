import json

import pytest

from vladmap.mapping.camera import Camera, max_error_px
from vladmap.mapping.camera_keys import camera_key, initial_camera
from vladmap.mapping.camera_trials import Trial, prior_stands


def test_images_share_a_camera_by_maker_model_size_and_focal_length() -> None:
    key = camera_key("GoPro", "HERO9 Black", 5184, 3888, 2160.4)
    assert key == "GoPro HERO9 Black 5184x3888 2160px"
    assert camera_key("GoPro", "HERO9 Black", 3888, 5184, 2160.4) != key
    assert camera_key(None, None, 1024, 768, None) == "unknown camera 1024x768 unknown"
    assert camera_key(None, " ", 1024, 768, float("nan")) == "unknown camera 1024x768 unknown"


def test_exif_gives_the_focal_length_or_the_long_side_does() -> None:
    known = initial_camera(640, 480, 425.0)
    assert known == Camera("SIMPLE_PINHOLE", 640, 480, (425.0, 320.0, 240.0), True)
    assumed = initial_camera(480, 640, None)
    assert assumed.params == pytest.approx([768.0, 240.0, 320.0])
    assert not assumed.has_prior_focal_length


def _trial(model: str, focal: float, score: float) -> Trial:
    camera = Camera(model, 640, 480, (focal, 320.0, 240.0, 0.0), True)
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


def test_a_camera_is_the_same_after_json_and_after_colmap() -> None:
    camera = Camera("OPENCV", 640, 480, (500.0, 501.0, 320.0, 240.0, 0.1, -0.02, 0.0, 1e-3), False)
    assert Camera.from_json(json.loads(json.dumps(camera.to_json()))) == camera
    assert Camera.from_colmap(camera.to_colmap(7)) == camera
    assert camera.to_colmap(7).camera_id == 7
    assert (camera.long_side_px, camera.focal_px) == (640, 500.0)
    assert camera.with_known_focal_length().has_prior_focal_length


@pytest.mark.parametrize(
    "broken",
    [{"params": [float("nan"), 1.0, 2.0]}, {"params": []}, {"params": None}, {"width": {}}],
)
def test_json_that_is_no_camera_is_refused(broken: dict[str, object]) -> None:
    record = Camera("SIMPLE_PINHOLE", 4, 3, (5.0, 2.0, 1.5), True).to_json()
    with pytest.raises(ValueError, match=r"not .*a camera"):
        Camera.from_json({**record, **broken})
    with pytest.raises(ValueError, match="model"):
        Camera.from_json({key: record[key] for key in record if key != "model"})


def test_an_inlier_may_err_by_4_pixels_and_more_in_larger_photographs() -> None:
    assert [max_error_px(size) for size in (640, 1600, 3200, 4000)] == [4.0, 4.0, 8.0, 10.0]
