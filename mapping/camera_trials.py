"""Which projection model the photographs of one camera bear out, by trial reconstructions.

A model is chosen by trial: a small, well-connected subset of a camera's images is verified and
mapped under each family of models from several focal lengths, the intrinsics are refined, and the
subset is mapped again with the refined intrinsics. Assumed intrinsics matter more than any option
of a mapper: of 29 photographs of one street, 21 to 29 are registered depending on the focal length
alone, and a wide-angle action camera needs a fisheye model.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vladmap.features.base import LocalFeatures, Matcher, Matches
from vladmap.features.colmap import pycolmap
from vladmap.features.table import read_features
from vladmap.mapping.camera import Camera, max_error_px
from vladmap.mapping.camera_keys import DEFAULT_FOCAL_FACTOR, camera_keys, initial_cameras
from vladmap.mapping.child import ChildFailed, call
from vladmap.mapping.mapper import (
    MapperOptions,
    bundle_adjust,
    map_globally,
    map_incrementally,
    msac_score,
    observation_errors,
    write_database,
)
from vladmap.mapping.trial_images import Evidence, most_matched, trial_images
from vladmap.mapping.two_view import MIN_INLIERS, verify

PAIR_COLUMNS = ["image_id_a", "image_id_b", "similarity"]
FEATURE_COLUMNS = ["image_id", "keypoints", "descriptors"]

MIN_TRIAL_IMAGES = 3

# Families by their one-parameter member, with the focal lengths, over the long side, to start from
# where EXIF has none: phones and compact cameras lie between the first two, action cameras about
# the last. Refinement bridges the gaps.
_FAMILIES: dict[str, tuple[float, ...]] = {
    "SIMPLE_RADIAL": (DEFAULT_FOCAL_FACTOR, 0.7),
    "SIMPLE_RADIAL_FISHEYE": (0.45,),
}
# What the winner is compared with on its own tracks, simplest first. A fisheye model with a cubic
# term near 1/3 is a pinhole in disguise, so the simple models are always among them.
_LADDER = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "OPENCV", "SIMPLE_RADIAL_FISHEYE", "OPENCV_FISHEYE")
# A richer model must raise the score by this share for each parameter that it adds.
_GAIN_PER_PARAMETER = 0.01
# EXIF's focal length stands if a map whose focal length is within this share of it (that of a
# 35 mm equivalent is rounded to whole millimetres) scores this share of the best trial's at least.
_PRIOR_TOLERANCE = 0.05
_PRIOR_STANDS = 0.9
_ROUNDS = 2
_TIME_LIMIT_S = 900.0
_PLAUSIBLE_FOCAL_FACTORS = (0.2, 5.0)


@dataclass(frozen=True)
class Trial:
    """The result of one trial reconstruction; `score` is that of `mapping.mapper.msac_score`."""

    camera: Camera
    registered: int
    observations: int
    error_px: float
    score: float


@dataclass(frozen=True)
class CameraChoice:
    """The chosen camera, the number of images tried, and the trials, best first.

    `failure` is the reason if the trials broke off; the camera is then the initial one. Where it is
    `out_of_memory` they may end well with more of it.
    """

    camera: Camera
    images: int
    trials: list[Trial] = field(default_factory=list)
    failure: str | None = None
    out_of_memory: bool = False

    def report(self) -> dict[str, Any]:
        """Return the choice as JSON-able numbers."""
        return {
            "camera": self.camera.to_json(),
            "images": self.images,
            "failure": self.failure,
            "trials": [
                {
                    "model": trial.camera.model,
                    "params": list(trial.camera.params),
                    "registered": trial.registered,
                    "observations": trial.observations,
                    "reprojection_error_px": trial.error_px,
                    "score": trial.score,
                }
                for trial in self.trials
            ],
        }


def choose_camera_model(
    initial: Camera,
    features: Mapping[str, LocalFeatures],
    matches: Mapping[tuple[str, str], Matches],
    min_inlier_share: float = 0.0,
    threads: int = 1,
) -> CameraChoice:
    """Return the camera that trial reconstructions of one camera's images bear out.

    `features` are those of a few well-connected images (see `mapping.trial_images`) taken by one
    camera, `matches` their raw matches by (image_id_a, image_id_b), image_id_a < image_id_b;
    `min_inlier_share` is that of their matcher (see `features.base.Matcher`). With too few images,
    or none that map, the initial camera stands. Trials from different starts run in `threads`
    beside each other, each on one core; the choice is the same with any number.
    """
    if len(features) < MIN_TRIAL_IMAGES:
        return CameraChoice(initial, len(features))
    matches = most_matched(features, matches)
    attempt = partial(
        _rounds, features=features, matches=matches, min_inlier_share=min_inlier_share
    )
    with ThreadPoolExecutor(threads) as pool:
        trials = [trial for rounds in pool.map(attempt, _starts(initial)) for trial in rounds]
    if not trials:
        return CameraChoice(initial, len(features))
    trials.sort(key=lambda item: -item[0].score)
    results = [trial for trial, _ in trials]
    camera = _climb(*trials[0], initial if prior_stands(initial, results) else None)
    return CameraChoice(camera, len(features), results)


def _starts(initial: Camera) -> list[Camera]:
    """Return the camera that trials of each family start from, for each focal length to try."""
    return [
        _camera(initial, family, focal)
        for family, factors in _FAMILIES.items()
        for focal in (
            [initial.focal_px]
            if initial.has_prior_focal_length
            else [factor * initial.long_side_px for factor in factors]
        )
    ]


def _rounds(
    start: Camera,
    features: Mapping[str, LocalFeatures],
    matches: Mapping[tuple[str, str], Matches],
    min_inlier_share: float,
) -> list[tuple[Trial, pycolmap.Reconstruction]]:
    """Return a trial of the start camera, and one of each camera that the last trial refined."""
    trials: list[tuple[Trial, pycolmap.Reconstruction]] = []
    camera: Camera | None = start
    while camera is not None and len(trials) < _ROUNDS:
        result = _try(camera, features, matches, min_inlier_share)
        if result is None:
            break
        trials.append(result)
        refined = _refined(result[1])
        camera = None if refined is None else refined.with_known_focal_length()
    return trials


def prior_stands(initial: Camera, trials: Sequence[Trial]) -> bool:
    """Return whether EXIF's focal length maps about as well as the best of `trials` does.

    A drive along a street hardly determines the focal length: maps of 11 images of one street had
    the same score at 425 and at 948 px. Mapping also has random failures, after which a map holds
    half of the images. So a trial whose refined focal length is close to EXIF's counts as well.
    """
    if not initial.has_prior_focal_length:
        return False
    focal = initial.focal_px
    own = [
        trial.score
        for trial in trials
        if trial.camera.model == "SIMPLE_RADIAL"
        and abs(trial.camera.focal_px - focal) <= _PRIOR_TOLERANCE * focal
    ]
    return bool(own) and max(own) >= _PRIOR_STANDS * max(trial.score for trial in trials)


def choose_camera_of(
    key: str,
    images: pa.Table,
    pairs: pa.Table,
    features: Iterable[pa.Table],
    matcher: Matcher,
    threads: int = 1,
) -> CameraChoice:
    """Return the choice for the camera of a key (see `mapping.camera_keys`), from tables.

    `images` are rows of IMAGES with the columns of camera_keys.IMAGE_COLUMNS, of this camera and
    others; `pairs` candidate pairs with PAIR_COLUMNS; `features` tables with FEATURE_COLUMNS, one
    of which is in memory at a time. An image without features takes no part.
    """
    images = images.filter(pa.array([other == key for other in camera_keys(images)]))
    own = images["image_id"].combine_chunks()
    by_id: dict[str, LocalFeatures] = {}
    for table in features:
        # Filtering copies the camera's own rows, so that the whole table can be freed.
        by_id |= read_features(table.filter(pc.is_in(table["image_id"], value_set=own)))
    usable = pa.array(sorted(by_id), pa.string())
    ends = (pc.is_in(pairs[f"image_id_{end}"], value_set=usable) for end in "ab")
    pairs = pairs.filter(pc.and_(*ends))
    return choose_camera(
        initial_cameras(images)[key],
        pairs["image_id_a"].to_pylist(),
        pairs["image_id_b"].to_pylist(),
        pairs["similarity"].to_numpy().astype(np.float64),
        by_id.__getitem__,
        matcher,
        threads,
    )


def choose_camera(
    initial: Camera,
    pair_a: Sequence[str],
    pair_b: Sequence[str],
    similarity: NDArray[np.float64],
    read_features: Callable[[str], LocalFeatures],
    matcher: Matcher,
    threads: int = 1,
) -> CameraChoice:
    """Return the choice for one camera, of which `initial` is assumed before any evidence.

    `pair_a`, `pair_b` are candidate pairs of its images, ordered by `similarity` (see
    `mapping.trial_images`). `read_features` gives the local features of an image_id, and is called
    for images that may be tried alone; `matcher` matches them. The trials run in `threads` of a
    child process; where it fails, the initial camera stands and the choice says why.
    """
    long_side = initial.long_side_px
    evidence = Evidence(read_features, matcher, max_error_px(long_side), long_side)
    subset = trial_images(pair_a, pair_b, similarity, evidence)
    features = {image_id: evidence.features(image_id) for image_id in subset}
    matches = {
        (a, b): evidence.match(a, b)
        for position, a in enumerate(subset)
        for b in subset[position + 1 :]
    }
    try:
        return call(
            choose_camera_model,
            initial,
            features,
            matches,
            matcher.min_inlier_share,
            threads,
            time_limit_s=_TIME_LIMIT_S,
        )
    except ChildFailed as error:
        return CameraChoice(
            initial, len(features), failure=str(error), out_of_memory=error.out_of_memory
        )


def _try(
    camera: Camera,
    features: Mapping[str, LocalFeatures],
    matches: Mapping[tuple[str, str], Matches],
    min_inlier_share: float,
) -> tuple[Trial, pycolmap.Reconstruction] | None:
    """Verify and map the subset under `camera`; None where nothing maps."""
    views = [
        view
        for (a, b), pair_matches in sorted(matches.items())
        if len(pair_matches) >= MIN_INLIERS
        and (
            view := verify(
                a,
                b,
                features[a],
                features[b],
                pair_matches,
                camera,
                camera,
                min_inlier_share=min_inlier_share,
            )
        ).verified
    ]
    names = {image_id: image_id for image_id in features}
    long_side = camera.long_side_px
    options = MapperOptions(min_model_size=MIN_TRIAL_IMAGES, max_runtime_s=120)
    best: tuple[Trial, pycolmap.Reconstruction] | None = None
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        database = work / "database.db"
        camera_of = dict.fromkeys(names, "camera")
        write_database(database, names, {"camera": camera}, camera_of, features, views)
        for run in (map_incrementally, map_globally):
            models = run(database, work, long_side, options)
            if not models:
                continue
            trial = _judge(models[0], camera)
            if best is None or trial.score > best[0].score:
                best = trial, models[0]
    return best


def _judge(model: pycolmap.Reconstruction, camera: Camera) -> Trial:
    long_side = camera.long_side_px
    errors = observation_errors(model)
    inliers = errors[errors < max_error_px(long_side)]
    return Trial(
        camera,
        model.num_reg_images(),
        len(inliers),
        float(inliers.mean()) if len(inliers) else math.nan,
        msac_score(errors, long_side),
    )


def _refined(model: pycolmap.Reconstruction) -> Camera | None:
    """Return the intrinsics of `model` after bundle adjustment; None if they ran away."""
    model = pycolmap.Reconstruction(model)
    bundle_adjust(model, refine_focal=True, refine_distortion=True)
    camera = Camera.from_colmap(next(iter(model.cameras.values())))
    low, high = (factor * camera.long_side_px for factor in _PLAUSIBLE_FOCAL_FACTORS)
    if not (np.all(np.isfinite(camera.params)) and low < camera.focal_px < high):
        return None
    return camera


def _climb(trial: Trial, model: pycolmap.Reconstruction, prior: Camera | None) -> Camera:
    """Return the simplest camera that explains the observations of the winning trial."""
    refined = pycolmap.Reconstruction(model)
    bundle_adjust(refined, refine_focal=True, refine_distortion=True)
    candidates: list[tuple[float, int, Camera]] = []
    if prior is not None:
        # EXIF's focal length and no distortion: nothing to estimate at all.
        variant = _recast(refined, prior.model, prior.focal_px)
        bundle_adjust(variant, refine_focal=False, refine_distortion=False)
        candidates.append((_judge(variant, trial.camera).score, 0, prior))
    for member in _LADDER:
        variant = _recast(refined, member)
        bundle_adjust(variant, refine_focal=True, refine_distortion=True)
        camera = Camera.from_colmap(next(iter(variant.cameras.values())))
        candidates.append((_judge(variant, trial.camera).score, len(camera.params) - 2, camera))
    best = max(
        candidates, key=lambda item: (item[0] * (1.0 - _GAIN_PER_PARAMETER * item[1]), -item[1])
    )
    return best[2].with_known_focal_length()


def _recast(
    model: pycolmap.Reconstruction, camera_model: str, focal: float | None = None
) -> pycolmap.Reconstruction:
    """Return a copy of `model` whose cameras have another projection model, undistorted."""
    model = pycolmap.Reconstruction(model)
    for camera_id, camera in model.cameras.items():
        recast = pycolmap.Camera.create_from_model_name(
            camera_id,
            camera_model,
            camera.mean_focal_length() if focal is None else focal,
            camera.width,
            camera.height,
        )
        camera.model = recast.model
        camera.params = recast.params
    return model


def _camera(like: Camera, model: str, focal: float) -> Camera:
    camera = pycolmap.Camera.create_from_model_name(1, model, focal, like.width, like.height)
    # Trials assume what they try: COLMAP uses the essential matrix for such cameras only.
    return Camera.from_colmap(camera).with_known_focal_length()
