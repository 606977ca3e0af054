"""`vladmap export --to kapture`: read back by the rules of the kapture 1.1 format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.exports.contents import DIMENSION, write_contents
from tests.exports.test_colmap import HEIGHT, WIDTH, write_atlas
from vladmap.features.colmap import pycolmap
from vladmap.jobs.main import main
from vladmap.photos.upright import plain_name


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    atlas = write_atlas(tmp_path, monkeypatch)
    write_contents(atlas)
    out = tmp_path / "out"
    assert main(["export", "--atlas", str(atlas), "--to", "kapture", "--output", str(out)]) == 0
    return out


def table(path: Path) -> list[list[str]]:
    """The fields of the lines of a table, whose first line has the version."""
    first, *lines = path.read_text().splitlines()
    assert first == "# kapture format: 1.1"
    return [[word.strip() for word in each.split(",")] for each in lines if each[0] != "#"]


def array(path: Path, dtype: str, columns: int) -> np.ndarray:
    return np.fromfile(path, dtype).reshape(-1, columns)


def rotation(w: float, x: float, y: float, z: float) -> np.ndarray:
    """The matrix of a unit quaternion, from its definition."""
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def test_points_seen_by_the_cameras_lie_at_the_keypoints_of_the_observations(
    folder: Path,
) -> None:
    cameras = {row[0]: row for row in table(folder / "sensors/sensors.txt")}
    for row in cameras.values():
        assert row[2:6] == ["camera", "PINHOLE", str(WIDTH), str(HEIGHT)]
    poses = {(row[0], row[1]): row[2:] for row in table(folder / "sensors/trajectories.txt")}
    seen = {}
    for stamp, device, name in table(folder / "sensors/records_camera.txt"):
        values = [float(word) for word in poses[stamp, device]]
        seen[name] = cameras[device], rotation(*values[:4]), np.array(values[4:])
        assert (folder / "sensors/records_data" / name).is_file()
    assert "b_c/002.jpg" in seen
    assert len(seen) == len(poses) == 8
    config = table(folder / "reconstruction/keypoints/sift/keypoints.txt")
    assert config == [["sift", "float32", "4"]]
    points = np.loadtxt(folder / "reconstruction/points3d.txt", delimiter=",")
    observed = table(folder / "reconstruction/observations.txt")
    assert len(observed) == len(points) > 100
    worst = 0.0
    for row in observed:
        place, kind, ends = points[int(row[0]), :3], row[1], row[2:]
        assert kind == "sift"
        assert len(ends) >= 4
        for name, index in zip(ends[::2], ends[1::2], strict=True):
            camera, turn, shift = seen[name]
            fx, fy, cx, cy = (float(word) for word in camera[6:])
            x, y, z = turn @ place + shift
            path = folder / f"reconstruction/keypoints/sift/{name}.kpt"
            keypoint = array(path, "<f4", 4)[int(index), :2]
            off = np.abs(keypoint - [fx * x / z + cx, fy * y / z + cy]).max()
            worst = max(worst, float(off))
    assert worst < 0.01, "the model of the street is exact, up to float32"


def test_features_and_trusted_matches_are_those_of_the_atlas(folder: Path, tmp_path: Path) -> None:
    base, atlas = folder / "reconstruction", tmp_path / "atlas"
    assert table(base / "descriptors/sift/descriptors.txt") == [
        ["sift", "uint8", "128", "sift", "L2"]
    ]
    stored = pq.read_table(atlas / "features/sift", columns=["image_id", "descriptors"])
    bytes_of = dict(zip(*stored.to_pydict().values(), strict=True))
    np.testing.assert_array_equal(
        array(base / "descriptors/sift/b_c/002.jpg.desc", "u1", 128), bytes_of["id-b c/002.jpg"]
    )
    described = base / "global_features/netvlad-lite"
    assert table(described / "global_features.txt") == [
        ["netvlad-lite", "float32", str(DIMENSION), "L2"]
    ]
    vectors = pq.read_table(atlas / "descriptors/netvlad-lite").to_pydict()
    of = dict(zip(vectors["image_id"], vectors["descriptor"], strict=True))
    np.testing.assert_array_equal(
        array(described / "001.jpg.gfeat", "<f4", DIMENSION)[0], np.float32(of["id-001.jpg"])
    )
    model = pycolmap.Reconstruction(str(atlas / "model" / "0"))
    shown = {
        plain_name(image.name, "", spaces=False): [point.point3D_id for point in image.points2D]
        for image in model.images.values()
    }
    files = sorted((base / "matches").rglob("*.matches"))
    assert len(files) == 6, "seven neighbours, one of which is not trusted"
    for path in files:
        first, second = str(path.relative_to(base / "matches/sift")).split(".overlapping/")
        second = second.removesuffix(".matches")
        # As upright files are named: 006.webp is 006.webp.jpg.
        a, b = (shown[name.removesuffix(".jpg") if "webp" in name else name]
                for name in (first, second))  # fmt: skip
        assert first < second
        matches = array(path, "<f8", 3)
        assert len(matches) > 10
        left, right = matches[:, 0].astype(int), matches[:, 1].astype(int)
        np.testing.assert_array_equal(np.array(a)[left], np.array(b)[right])
        assert abs(matches[:, 2].sum() * 2 - len(matches)) <= 1, "every second is an inlier"


def test_commas_which_end_a_name_in_the_text_files_become_underscores() -> None:
    assert plain_name("a, b/c,d.jpg", "id", spaces=False, commas=False) == "a__b/c_d.jpg"
    assert plain_name("a,b.jpg", "id", {"a_b.jpg"}, commas=False) == "id/a_b.jpg"
