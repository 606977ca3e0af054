"""Maps from first poses that are off by a metre and a degree are exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.mapping.view_graph.street import CAMERA, Street, street
from vladmap.features.base import LocalFeatures
from vladmap.mapping.arrays import Array
from vladmap.mapping.check import best_similarity
from vladmap.mapping.georegister import centres_and_rotations
from vladmap.mapping.mapper import MapperOptions, write_database
from vladmap.mapping.posed_mapper import FirstPose, map_from_poses

pytestmark = pytest.mark.medium


def database(folder: Path, there: Street) -> Path:
    names = {each: f"{each}.jpg" for each in there.ids}
    features = {
        each: LocalFeatures(
            np.hstack([pixels, np.ones((len(pixels), 2))]).astype(np.float32),
            np.zeros((len(pixels), 0), np.uint8),
            (CAMERA.width, CAMERA.height),
        )
        for each, pixels in zip(there.ids, there.pixels, strict=True)
    }
    path = folder / "database.db"
    keys = dict.fromkeys(there.ids, "camera")
    write_database(path, names, {"camera": CAMERA}, keys, features, there.views())
    return path


def off_by(there: Street, metres: float, degrees: float) -> dict[str, FirstPose]:
    rng = np.random.default_rng(0)
    return {
        f"{each}.jpg": FirstPose(
            Rotation.from_rotvec(np.radians(degrees) * rng.normal(size=3) / 2).as_matrix() @ turn,
            centre + metres * rng.normal(size=3) / 2,
        )
        for each, turn, centre in zip(there.ids, there.rotation, there.centre, strict=True)
    }


def shape_error_m(there: Street, names: list[str], centres: Array) -> float:
    truth = there.centre[[int(name[:4]) for name in names]]
    scale, turn, shift = best_similarity(centres, truth)
    return float(np.linalg.norm(scale * centres @ turn.T + shift - truth, axis=1).max())


def test_poses_that_are_off_by_a_metre_and_a_degree_are_adjusted_to_centimetres(
    tmp_path: Path,
) -> None:
    there = street(16)
    path = database(tmp_path, there)
    (model,) = map_from_poses(path, off_by(there, 1.0, 1.0), 640, MapperOptions())
    names, centres, _ = centres_and_rotations(model)
    assert len(names) == 16
    assert shape_error_m(there, names, centres) < 0.05


def test_an_image_without_a_first_pose_is_registered_to_the_others(tmp_path: Path) -> None:
    there = street(12)
    poses = off_by(there, 0.5, 0.5)
    del poses["0005.jpg"]
    (model,) = map_from_poses(database(tmp_path, there), poses, 640, MapperOptions())
    names, centres, _ = centres_and_rotations(model)
    assert "0005.jpg" in names
    assert shape_error_m(there, names, centres) < 0.05


def test_without_poses_there_is_no_map(tmp_path: Path) -> None:
    there = street(6)
    assert map_from_poses(database(tmp_path, there), {}, 640, MapperOptions()) == []


def test_same_inputs_give_the_same_model(tmp_path: Path) -> None:
    there = street(8)
    path, poses = database(tmp_path, there), off_by(there, 0.5, 0.5)
    written = []
    for name in ("one", "other"):
        (model,) = map_from_poses(path, poses, 640, MapperOptions())
        folder = tmp_path / name
        folder.mkdir()
        model.write_binary(folder)
        written.append({each.name: each.read_bytes() for each in folder.iterdir()})
    assert written[0] == written[1]
