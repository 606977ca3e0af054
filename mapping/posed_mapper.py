"""Mapping from first poses: all points at once, then bundle adjustment of all images together.

Incremental mapping adds an image at a time and adjusts the whole again and again; where a wrong
pair or a gap lies on its way, what follows hangs from it. From first poses that the pose graph of
all pairs gives (see mapping.view_graph) nothing hangs from anything: points are triangulated with
wide bounds, all poses adjusted, and the bounds narrowed. It takes a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vladmap.features.colmap import pycolmap
from vladmap.mapping.arrays import Array
from vladmap.mapping.colmap import SEED
from vladmap.mapping.mapper import MapperOptions, incremental_options, largest_first

# The bounds on errors of points, as multiples of those of incremental mapping, round by round:
# first poses are off by about a metre and a degree, which is some twenty pixels.
_BOUNDS = (8.0, 3.0, 1.0, 1.0)
_REFINEMENTS = 2
_LEAST_CHANGE = 0.0005
_ITERATIONS = (25, 25, 40, 60)
_TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-6)


@dataclass(frozen=True)
class FirstPose:
    """Where an image is about: camera_from_world (3, 3) and its projection centre (3,), metres."""

    rotation: Array
    centre: Array


def map_from_poses(
    database: Path, poses: Mapping[str, FirstPose], long_side_px: int, options: MapperOptions
) -> list[pycolmap.Reconstruction]:
    """Return the reconstruction of a database's images from first poses, by image name.

    Images without a first pose are registered to the points of the others, where they can be. The
    intrinsics stay as given. There may be no reconstruction, or one in several pieces that share no
    point; those that evidence does not hold are taken out afterwards (mapping.sound_models).
    """
    pycolmap.set_random_seed(SEED)
    with pycolmap.Database.open(database) as opened:
        cache = pycolmap.DatabaseCache.create(opened, pycolmap.DatabaseCacheOptions())
    model = pycolmap.Reconstruction()
    model.load(cache)
    for _, image in sorted(model.images.items()):
        pose = poses.get(image.name)
        if pose is not None:
            frame = model.frame(image.frame_id)
            frame.rig_from_world = pycolmap.Rigid3d(
                pycolmap.Rotation3d(pose.rotation), -pose.rotation @ pose.centre
            )
            model.register_frame(image.frame_id)
    if model.num_reg_images() < options.min_model_size:
        return []
    mapper = pycolmap.IncrementalMapper(cache)
    mapper.begin_reconstruction(model)
    for number in sorted(model.reg_image_ids()):
        mapper.triangulate_image(_settings(long_side_px, _BOUNDS[0]).triangulation, number)
    for bound, iterations, tolerance in zip(_BOUNDS, _ITERATIONS, _TOLERANCES, strict=True):
        settings = _settings(long_side_px, bound)
        if bound == 1.0:
            _register_others(mapper, settings)
        mapper.iterative_global_refinement(
            _REFINEMENTS,
            _LEAST_CHANGE,
            settings.mapper,
            _adjustment(bound, iterations, tolerance),
            settings.triangulation,
            normalize_reconstruction=False,
        )
    mapper.end_reconstruction(False)
    model.update_point_3d_errors()
    return largest_first([model], options.min_model_size)


def _register_others(
    mapper: pycolmap.IncrementalMapper, settings: pycolmap.IncrementalPipelineOptions
) -> None:
    """Register the images without a first pose to the points there are, best seen first."""
    while True:
        done = False
        for number in mapper.find_next_images(settings.mapper, structure_less=False):
            if mapper.register_next_image(settings.mapper, number):
                mapper.triangulate_image(settings.triangulation, number)
                done = True
        if not done:
            return


def _settings(long_side_px: int, bound: float) -> pycolmap.IncrementalPipelineOptions:
    """The options of incremental mapping, with bounds on errors so many times as wide."""
    settings = incremental_options(long_side_px)
    settings.mapper.filter_max_reproj_error *= bound
    triangulation = settings.triangulation
    for name in (
        "create_max_angle_error",
        "continue_max_angle_error",
        "merge_max_reproj_error",
        "complete_max_reproj_error",
    ):
        setattr(triangulation, name, getattr(triangulation, name) * bound)
    return settings


def _adjustment(
    bound: float, iterations: int, tolerance: float
) -> pycolmap.BundleAdjustmentOptions:
    options = pycolmap.BundleAdjustmentOptions(
        refine_focal_length=False, refine_extra_params=False, print_summary=False
    )
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = max(1.0, bound / 2)
    options.ceres.solver_options.num_threads = 1
    options.ceres.solver_options.max_num_iterations = iterations
    options.ceres.solver_options.function_tolerance = tolerance
    return options
