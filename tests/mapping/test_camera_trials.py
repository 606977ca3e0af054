"""Which projection model trial reconstructions bear out, on a street whose lens is known."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tests.mapping.scene import CAMERA, features_of, id_of, images_of, views_of
from tests.mapping.test_tile_merge import FOCAL, HEIGHT, WIDTH
from vladmap.features.base import LocalFeatures
from vladmap.features.rootsift import KIND
from vladmap.features.table import feature_table
from vladmap.mapping.camera import Camera
from vladmap.mapping.camera_keys import camera_keys, initial_camera
from vladmap.mapping.camera_trials import (
    CameraChoice,
    Trial,
    choose_camera,
    choose_camera_model,
    choose_camera_of,
)

NUMBERS = range(6)


def chosen(initial: Camera, numbers: range = NUMBERS, threads: int = 1) -> CameraChoice:
    views = views_of(numbers)
    matches = {(view.image_id_a, view.image_id_b): view.matches for view in views}
    return choose_camera_model(initial, features_of(numbers), matches, threads=threads)


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_the_focal_length_of_the_street_is_chosen_known_or_not(known: bool) -> None:
    """Its pinhole of 500 px; without EXIF the trials begin at 768 and at 448."""
    # A short stretch of a street hardly shows its focal length: unknown, it takes more of the bend.
    numbers = range(6 if known else 14)
    choice = chosen(initial_camera(WIDTH, HEIGHT, FOCAL if known else None), numbers)
    assert choice.failure is None
    assert choice.images == len(numbers)
    assert choice.camera.has_prior_focal_length
    assert choice.camera.focal_px == pytest.approx(FOCAL, rel=0.001 if known else 0.05)
    if known:
        assert choice.camera == CAMERA
    scores = [trial.score for trial in choice.trials]
    assert scores == sorted(scores, reverse=True)
    assert choice.trials[0].registered == len(numbers)
    assert choice.trials[0].error_px < 1.0


@pytest.mark.slow
def test_the_same_trials_choose_the_same_camera_again_beside_each_other_too() -> None:
    """Without EXIF there are three starts, each of which maps four times."""
    initial = initial_camera(WIDTH, HEIGHT, None)
    one_by_one = chosen(initial)
    assert len(one_by_one.trials) > 3
    assert chosen(initial, threads=3) == one_by_one


def test_of_fewer_than_three_images_the_first_assumption_stands() -> None:
    initial = initial_camera(WIDTH, HEIGHT, None)
    assert chosen(initial, range(2)) == CameraChoice(initial, 2)


def test_where_nothing_maps_the_first_assumption_stands() -> None:
    initial = initial_camera(WIDTH, HEIGHT, 400.0)
    choice = choose_camera_model(initial, features_of(NUMBERS), {})
    assert choice == CameraChoice(initial, len(NUMBERS))


def test_trials_that_crash_leave_the_first_assumption_and_say_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vladmap.mapping import camera_trials
    from vladmap.mapping.child import ChildFailed

    def crash(*_: object, **__: object) -> CameraChoice:
        raise ChildFailed("killed by signal 11")

    monkeypatch.setattr(camera_trials, "call", crash)
    initial = initial_camera(WIDTH, HEIGHT, FOCAL)
    views = views_of(NUMBERS)
    choice = choose_camera(
        initial, [view.image_id_a for view in views], [view.image_id_b for view in views],
        pa.array([1.0] * len(views)).to_numpy(), features_of(NUMBERS).__getitem__, KIND.nearest,
    )  # fmt: skip
    assert choice.camera == initial
    assert choice.failure == "killed by signal 11"


def test_only_images_of_the_camera_with_features_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs 0 to 2 are the camera's and have features; 3 has none, 4 and 5 are another's."""
    from vladmap.mapping import camera_trials

    tried: dict[str, LocalFeatures] = {}

    def record(initial: Camera, features: dict[str, LocalFeatures], *_: object, **__: object):
        tried.update(features)
        return CameraChoice(initial, len(features))

    monkeypatch.setattr(camera_trials, "call", lambda function, *given, **_: record(*given))
    images = pa.concat_tables([images_of(range(4)), images_of(range(4, 6), make="Other")])
    there = features_of([0, 1, 2, 4, 5])
    table = feature_table([(name, WIDTH, HEIGHT, there[name]) for name in sorted(there)], KIND)
    views = views_of(NUMBERS)
    pairs = pa.table(
        {
            "image_id_a": [view.image_id_a for view in views],
            "image_id_b": [view.image_id_b for view in views],
            "similarity": pa.array([0.5] * len(views), pa.float32()),
        }
    )
    key = camera_keys(images)[0]
    choice = choose_camera_of(key, images, pairs, iter([table]), KIND.nearest)
    assert sorted(tried) == [id_of(0), id_of(1), id_of(2)]
    assert choice == CameraChoice(initial_camera(WIDTH, HEIGHT, FOCAL), 3)


def test_a_report_has_the_camera_and_each_trial_as_json() -> None:
    choice = CameraChoice(CAMERA, 6, [Trial(CAMERA, 6, 900, 0.5, 880.0)])
    assert choice.report() == {
        "camera": CAMERA.to_json(), "images": 6, "failure": None,
        "trials": [
            {"model": "SIMPLE_PINHOLE", "params": [500.0, 320.0, 240.0], "registered": 6,
             "observations": 900, "reprojection_error_px": 0.5, "score": 880.0}
        ],
    }  # fmt: skip
