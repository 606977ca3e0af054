"""Structure from motion on one set of images: a COLMAP database in, reconstructions out.

Everything is seeded and COLMAP runs on one thread: with more, the order in which partial sums meet
changes the result (3274 and 4068 points were seen from one database).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vladmap.features.base import LocalFeatures
from vladmap.features.colmap import pycolmap
from vladmap.mapping.camera import MAX_ERROR_PX, Camera, max_error_px
from vladmap.mapping.colmap import SEED
from vladmap.mapping.two_view import TwoView, to_colmap_geometry


@dataclass(frozen=True)
class MapperOptions:
    """How one set of images is mapped.

    `min_model_size`: images; smaller models are dropped. `gps_sigma_m`: the accuracy, one sigma,
    of positions that state none.
    """

    min_model_size: int = 3
    max_runtime_s: int = 3600
    gps_sigma_m: float = 5.0


def write_database(
    path: Path,
    names: Mapping[str, str],
    cameras: Mapping[str, Camera],
    camera_of: Mapping[str, str],
    features: Mapping[str, LocalFeatures],
    views: Iterable[TwoView],
) -> dict[str, int]:
    """Write a COLMAP database at `path` and return the COLMAP image id of each image_id.

    `names` gives each image_id its name in the models, `camera_of` the key of its camera. COLMAP's
    ids follow sorted names and sorted keys, so that the same inputs give the same database.
    Keypoints, raw matches and two-view geometries are stored ready-made; descriptors are not.
    """
    order = sorted(names, key=lambda image_id: names[image_id])
    used = sorted({camera_of[image_id] for image_id in order})
    camera_ids = {key: number for number, key in enumerate(used, start=1)}
    image_ids = {image_id: number for number, image_id in enumerate(order, start=1)}
    with pycolmap.Database.open(path) as database, pycolmap.DatabaseTransaction(database):
        for key, camera_id in camera_ids.items():
            database.write_camera(cameras[key].to_colmap(camera_id), use_camera_id=True)
            rig = pycolmap.Rig(rig_id=camera_id)
            rig.add_ref_sensor(pycolmap.sensor_t(type=pycolmap.SensorType.CAMERA, id=camera_id))
            database.write_rig(rig, use_rig_id=True)
        for image_id, number in image_ids.items():
            image = pycolmap.Image(
                name=names[image_id], camera_id=camera_ids[camera_of[image_id]], image_id=number
            )
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=number, rig_id=image.camera_id)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            database.write_keypoints(number, _corner_keypoints(features[image_id]))
        for view in sorted(views, key=lambda view: (view.image_id_a, view.image_id_b)):
            a, b = image_ids[view.image_id_a], image_ids[view.image_id_b]
            database.write_matches(a, b, view.matches)
            database.write_two_view_geometry(a, b, to_colmap_geometry(view))
    return image_ids


def map_incrementally(
    database: Path, work: Path, long_side_px: int, options: MapperOptions
) -> list[pycolmap.Reconstruction]:
    """Return COLMAP's incremental reconstructions of a database, most images first.

    The options are those of a camera that moves forward along a street, with little parallax:
    with COLMAP's own, 2 of 29 photographs of one street were registered, with these all 29.
    Intrinsics stay as given: such motion barely constrains them, and they would drag the map along.
    """
    settings = incremental_options(long_side_px)
    settings.min_model_size = options.min_model_size
    settings.max_runtime_seconds = options.max_runtime_s
    pycolmap.set_random_seed(SEED)
    models = pycolmap.incremental_mapping(database, work, _output(work), settings)
    return largest_first(models.values(), options.min_model_size)


def incremental_options(long_side_px: int) -> pycolmap.IncrementalPipelineOptions:
    """Return the options of incremental mapping for photographs of this size."""
    settings = pycolmap.IncrementalPipelineOptions(
        num_threads=1,
        random_seed=SEED,
        extract_colors=False,
        ba_refine_focal_length=False,
        ba_refine_extra_params=False,
        # Adjusting the whole map at every tenth more images is most of the time: at every third,
        # the result is the same.
        ba_global_frames_ratio=1.3,
        ba_global_points_ratio=1.3,
        ba_global_max_refinements=3,
    )
    pixels = error_scale(long_side_px)
    settings.mapper.num_threads = 1
    settings.mapper.random_seed = SEED
    settings.mapper.init_min_num_inliers = 50
    settings.mapper.init_min_tri_angle = 4.0
    settings.mapper.abs_pose_min_num_inliers = 15
    settings.mapper.abs_pose_refine_focal_length = False
    settings.mapper.abs_pose_refine_extra_params = False
    settings.mapper.init_max_error *= pixels
    settings.mapper.abs_pose_max_error *= pixels
    settings.mapper.filter_max_reproj_error *= pixels
    settings.triangulation.random_seed = SEED
    settings.triangulation.ignore_two_view_tracks = False
    settings.triangulation.merge_max_reproj_error *= pixels
    settings.triangulation.complete_max_reproj_error *= pixels
    return settings


def map_globally(
    database: Path, work: Path, long_side_px: int, options: MapperOptions
) -> list[pycolmap.Reconstruction]:
    """Return COLMAP's global (GLOMAP) reconstructions of a database, most images first.

    It keeps tracks that help to place cameras, of one street a third of those that its poses bear
    out: the others are triangulated afterwards.
    """
    settings = pycolmap.GlobalPipelineOptions(
        num_threads=1, random_seed=SEED, min_model_size=options.min_model_size
    )
    settings.mapper.num_threads = 1
    settings.mapper.random_seed = SEED
    settings.mapper.rotation_averaging.random_seed = SEED
    settings.mapper.global_positioning.random_seed = SEED
    settings.mapper.retriangulation.random_seed = SEED
    settings.mapper.bundle_adjustment.refine_focal_length = False
    settings.mapper.bundle_adjustment.refine_extra_params = False
    pycolmap.set_random_seed(SEED)
    models = pycolmap.global_mapping(database, work, _output(work), settings)
    large_enough = largest_first(models.values(), options.min_model_size)
    return [_triangulated(model, database, work, long_side_px) for model in large_enough]


def _triangulated(
    model: pycolmap.Reconstruction, database: Path, work: Path, long_side_px: int
) -> pycolmap.Reconstruction:
    """Return the model with all points that the database's pairs and its poses give."""
    settings = incremental_options(long_side_px)
    pycolmap.set_random_seed(SEED)
    more = pycolmap.triangulate_points(
        model, database, work, _output(work), clear_points=False, options=settings,
        refine_intrinsics=False,
    )  # fmt: skip
    bundle_adjust(more, refine_focal=False, refine_distortion=False)
    return more


def largest_first(
    models: Iterable[pycolmap.Reconstruction], min_model_size: int
) -> list[pycolmap.Reconstruction]:
    """Return the models of at least `min_model_size` images; equal sizes by their first names."""
    large_enough = [model for model in models if model.num_reg_images() >= min_model_size]
    return sorted(
        large_enough, key=lambda model: (-model.num_reg_images(), sorted(image_names(model)))
    )


def image_names(model: pycolmap.Reconstruction) -> list[str]:
    """Return the names of a model's registered images, by COLMAP id."""
    return [model.image(number).name for number in sorted(model.reg_image_ids())]


def bundle_adjust(
    model: pycolmap.Reconstruction, *, refine_focal: bool, refine_distortion: bool
) -> None:
    """Refine the poses and points of `model` in place, and those intrinsics that are asked for."""
    options = adjustment_options(refine_focal=refine_focal, refine_distortion=refine_distortion)
    # pycolmap.bundle_adjustment would do the same and turn COLMAP's log on again.
    pycolmap.ObservationManager(model).filter_observations_with_negative_depth()
    config = pycolmap.BundleAdjustmentConfig()
    for number in sorted(model.reg_image_ids()):
        config.add_image(number)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    model.update_point_3d_errors()


def adjustment_options(
    *, refine_focal: bool, refine_distortion: bool
) -> pycolmap.BundleAdjustmentOptions:
    """Return the options of every bundle adjustment: one thread, Cauchy's loss."""
    options = pycolmap.BundleAdjustmentOptions(
        refine_focal_length=refine_focal,
        refine_extra_params=refine_distortion,
        print_summary=False,
    )
    options.ceres.solver_options.num_threads = 1
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    return options


def observation_errors(model: pycolmap.Reconstruction) -> NDArray[np.float64]:
    """Return the reprojection error in pixels of every observation, by image and keypoint.

    An observation behind its camera has an infinite error.
    """
    errors = []
    for number in sorted(model.reg_image_ids()):
        image = model.image(number)
        seen = image.get_observation_points2D()
        if len(seen) == 0:
            continue
        measured = np.array([point.xy for point in seen])
        world = np.array([model.points3D[point.point3D_id].xyz for point in seen])
        in_camera = image.cam_from_world() * world
        projected = model.camera(image.camera_id).img_from_cam(in_camera)
        error = np.linalg.norm(projected - measured, axis=1)
        errors.append(np.where(np.isfinite(error) & (in_camera[:, 2] > 0), error, np.inf))
    return np.concatenate(errors) if errors else np.zeros(0)


def msac_score(errors_px: NDArray[np.float64], long_side_px: int) -> float:
    """Return the sum of 1 - (error / threshold)^2 over inliers (Torr and Zisserman, 2000).

    More observations and more exact ones both raise it, so that it compares maps of one data set.
    """
    threshold = max_error_px(long_side_px)
    inliers = errors_px[errors_px < threshold]
    return float((1.0 - (inliers / threshold) ** 2).sum())


def model_score(model: pycolmap.Reconstruction, long_side_px: int) -> float:
    """Return the MSAC score of a model's observations."""
    return msac_score(observation_errors(model), long_side_px)


def error_scale(long_side_px: int) -> float:
    """Return the factor on COLMAP's pixel thresholds for photographs of this size."""
    return max_error_px(long_side_px) / MAX_ERROR_PX


def _corner_keypoints(features: LocalFeatures) -> np.ndarray:
    return np.ascontiguousarray(features.keypoints, np.float32)


def _output(work: Path) -> Path:
    output = work / "sparse"
    output.mkdir(parents=True, exist_ok=True)
    return output
