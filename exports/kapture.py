"""Exports a model with its photographs, features and matches as a kapture 1.1 folder.

Comma-separated text and little-endian arrays, as kapture_format.adoc of naver/kapture defines them.
Keypoints have COLMAP's origin, as kapture's own importer from COLMAP leaves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vladmap.atlas.store import AtlasStore
from vladmap.exports.base import Exporter, Outcome, Settings, new_folder
from vladmap.exports.colmap import missing_of, report_lines, write_photographs
from vladmap.exports.map_contents import MapContents, image_ids
from vladmap.features.colmap import pycolmap
from vladmap.mapping.camera import Camera
from vladmap.mapping.tile_arrays import tile_arrays
from vladmap.schemas.rejects import UserError

_VERSION = "# kapture format: 1.1"
_RECORDS = "sensors/records_data"
# The camera models of COLMAP that kapture has, with the same parameters.
_CAMERAS = frozenset(
    {
        "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE",
        "FULL_OPENCV", "FOV", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE",
    }
)  # fmt: skip


class KaptureExporter(Exporter):
    """`sensors/` with photographs, cameras and poses; `reconstruction/` with all the rest."""

    def export(
        self,
        atlas: AtlasStore,
        settings: Settings,
        progress: Callable[[], object] = lambda: None,
    ) -> Outcome:
        """See Exporter.export.

        Names have neither commas, which end them in kapture's files, nor spaces. The timestamp of
        a photograph is its row by name: captures of two cameras may be at one time.
        """
        atlas.require(("ingest", "verify", "merge"))
        with new_folder(settings.output) as output:
            plain = {"spaces": False, "commas": False}
            model, exported = write_photographs(atlas, settings, _RECORDS, progress, plain)
            ids = image_ids(atlas, settings.model)
            contents = MapContents(atlas, {ids[item.name]: item.file for item in exported})
            _write_sensors(model, output / "sensors")
            lines = list(report_lines(exported, output / _RECORDS))
            lines += _write_contents(contents, model, output / "reconstruction")
            lines += _write_points(contents, model, output / "reconstruction")
        return Outcome(tuple(lines), len(exported), missing_of(exported))


EXPORTER = KaptureExporter()


def _write_sensors(model: pycolmap.Reconstruction, folder: Path) -> None:
    cameras = []
    for number, camera in sorted(model.cameras.items()):
        known = Camera.from_colmap(camera)
        if known.model not in _CAMERAS:
            raise UserError(f"kapture has no camera model {known.model}: it cannot hold this map")
        name = _device(number)
        cameras.append([name, name, "camera", known.model, known.width, known.height])
        cameras[-1] += [_number(value) for value in known.params]
    _write_table(folder / "sensors.txt", "sensor_id, name, sensor_type, [sensor_params]+", cameras)
    records, poses = [], []
    images = (model.image(number) for number in model.reg_image_ids())
    for row, image in enumerate(sorted(images, key=lambda image: image.name)):
        device, pose = _device(image.camera_id), image.cam_from_world()
        turn = pose.rotation.quat[[3, 0, 1, 2]].tolist()
        records.append([row, device, image.name])
        poses.append([row, device, *map(_number, [*turn, *pose.translation.tolist()])])
    _write_table(folder / "records_camera.txt", "timestamp, device_id, image_path", records)
    header = "timestamp, device_id, qw, qx, qy, qz, tx, ty, tz"
    _write_table(folder / "trajectories.txt", header, poses)


def _write_contents(
    contents: MapContents, model: pycolmap.Reconstruction, folder: Path
) -> list[str]:
    kind = contents.kind
    keypoints, descriptors = folder / "keypoints" / kind, folder / "descriptors" / kind
    written, dimension = "", 0
    for name, features in contents.features(model):
        _write_array(keypoints / f"{name}.kpt", features.keypoints)
        stored, dimension = features.descriptors, features.descriptors.shape[1]
        # kapture reads uint8 and float32, not float16.
        written = "uint8" if stored.dtype == np.uint8 else "float32"
        _write_array(descriptors / f"{name}.desc", stored.astype(written))
    _write_table(keypoints / "keypoints.txt", "name, dtype, dsize", [[kind, "float32", 4]])
    header = "name, dtype, dsize, keypoints_type, metric_type"
    row = [kind, written, dimension, kind, "L2"]
    _write_table(descriptors / "descriptors.txt", header, [row])
    pairs, beyond = contents.pairs()
    matches = folder / "matches" / kind
    matches.mkdir(parents=True)
    for pair in pairs:
        scored = np.column_stack([pair.matches, pair.explained]).astype(np.float64)
        _write_array(matches / f"{pair.a}.overlapping" / f"{pair.b}.matches", scored)
    vectors = contents.descriptors()
    described = folder / "global_features" / vectors.model
    for name, vector in zip(contents.names.values(), vectors.of(list(contents.names)), strict=True):
        _write_array(described / f"{name}.gfeat", vector)
    row = [vectors.model, "float32", vectors.dimension, "L2"]
    _write_table(described / "global_features.txt", "name, dtype, dsize, metric_type", [row])
    lines = [
        f"{sum(contents.counts.values())} {kind} features in {folder / 'keypoints'}",
        f"{len(pairs)} trusted pairs in {folder / 'matches'}",
        f"{len(contents.names)} descriptors by {vectors.model} in {folder / 'global_features'}",
    ]
    if beyond:
        lines.append(f"{beyond} pairs that another kind of features matched are left out")
    return lines


def _write_points(contents: MapContents, model: pycolmap.Reconstruction, folder: Path) -> list[str]:
    names = sorted(contents.counts)
    arrays = tile_arrays(model, {name: row for row, name in enumerate(names)})
    numbers = sorted(model.points3D)
    colours = np.array([model.point3D(number).color for number in numbers]).reshape(-1, 3)
    points = np.concatenate([arrays.places, colours], axis=1)
    header = f"{_VERSION[2:]}\nX, Y, Z, R, G, B"
    np.savetxt(folder / "points3d.txt", points, delimiter=", ", header=header, fmt="%.10f")
    counts = np.array([contents.counts[name] for name in names], np.int64)
    own = arrays.keypoint < counts[arrays.seen_by]  # the others are of a second kind of features
    order = np.flatnonzero(own)[np.lexsort((arrays.seen_by[own], arrays.point[own]))]
    shown, starts = np.unique(arrays.point[order], return_index=True)
    images = [names[row] for row in arrays.seen_by[order].tolist()]
    ends = [
        f"{image}, {keypoint}"
        for image, keypoint in zip(images, arrays.keypoint[order].tolist(), strict=True)
    ]
    limits = [*starts.tolist(), len(order)]
    rows = [
        [point, contents.kind, *ends[start:end]]
        for point, start, end in zip(shown.tolist(), limits[:-1], limits[1:], strict=True)
    ]
    header = "point3d_id, keypoints_type, [image_path, feature_id]*"
    _write_table(folder / "observations.txt", header, rows)
    lines = [f"{len(points)} points with {len(order)} observations in {folder}"]
    if left := len(own) - len(order):
        lines.append(f"{left} observations of another kind of features are left out")
    return lines


def _device(camera: int) -> str:
    return f"camera{camera}"


def _number(value: float) -> str:
    return f"{value:.17g}"


def _write_table(path: Path, header: str, rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [_VERSION, f"# {header}", *(", ".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_array(path: Path, values: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())
