"""`vladmap export --to hloc`: read back by h5py and COLMAP, by the rules of hloc's reader."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.exports.contents import DIMENSION, write_contents
from tests.exports.test_colmap import HEIGHT, WIDTH, write_atlas
from vladmap.atlas.store import AtlasStore
from vladmap.exports import hloc_files
from vladmap.exports.map_contents import MapContents
from vladmap.features.base import LocalFeatures
from vladmap.features.colmap import pycolmap
from vladmap.jobs.main import main
from vladmap.mapping.camera import Camera
from vladmap.schemas.rejects import UserError


@pytest.fixture
def atlas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = write_atlas(tmp_path, monkeypatch)
    write_contents(root)
    return root


def exported(atlas: Path, output: Path, *words: str) -> Path:
    command = ["export", "--atlas", str(atlas), "--to", "hloc", "--output", str(output), *words]
    assert main(command) == 0
    return output


def read_matches(path: Path, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """(matches (m, 2), scores (m,)) of a pair, in the form in which the format defines them."""
    with h5py.File(path) as file:
        group = file[first.replace("/", "-")][second.replace("/", "-")]
        partner, scores = group["matches0"][:], group["matching_scores0"][:]
    at = np.flatnonzero(partner != -1)
    return np.stack([at, partner[at]], axis=1), scores[at]


def test_keypoints_plus_half_a_pixel_are_those_of_the_model_and_descriptors_are_unit_columns(
    atlas: Path, tmp_path: Path
) -> None:
    out = exported(atlas, tmp_path / "out")
    model = pycolmap.Reconstruction(str(out / "sparse" / "0"))
    names = {image.name: image for image in model.images.values()}
    assert "b_c/002.jpg" in names, "hloc ends a name at a space"
    assert (out / "images.txt").read_text().split("\n")[:-1] == sorted(names)
    stored = pq.read_table(atlas / "features/sift", columns=["image_id", "descriptors"])
    bytes_of = dict(zip(*stored.to_pydict().values(), strict=True))
    with h5py.File(out / "features.h5") as file:
        for name, image in names.items():
            group = file[name]
            keypoints = group["keypoints"]
            assert keypoints.dtype == np.float32
            corner = np.array([point.xy for point in image.points2D])
            np.testing.assert_allclose(keypoints[:] + 0.5, corner, atol=1e-4)
            assert group["descriptors"].shape == (128, len(corner))
            np.testing.assert_allclose(np.linalg.norm(group["descriptors"], axis=0), 1, atol=4e-3)
            assert group["image_size"][:].tolist() == [WIDTH, HEIGHT]
        given = np.array(bytes_of["id-b c/002.jpg"], np.float64)
        unit = given / np.linalg.norm(given, axis=1, keepdims=True)
        np.testing.assert_allclose(file["b_c/002.jpg/descriptors"][:].T, unit, atol=3e-4)


def test_matches_join_the_keypoints_of_one_point_and_only_of_trusted_pairs(
    atlas: Path, tmp_path: Path
) -> None:
    out = exported(atlas, tmp_path / "out")
    pairs = [line.split(" ") for line in (out / "pairs.txt").read_text().splitlines()]
    assert len(pairs) == 6, "seven neighbours, one of which is not trusted"
    model = pycolmap.Reconstruction(str(out / "sparse" / "0"))
    points = {
        image.name: np.array([point.point3D_id for point in image.points2D])
        for image in model.images.values()
    }
    assert any("/" in name for pair in pairs for name in pair)
    for first, second in pairs:
        matches, scores = read_matches(out / "matches.h5", first, second)
        assert len(matches) > 10
        shown = points[first][matches[:, 0]]
        np.testing.assert_array_equal(shown, points[second][matches[:, 1]])
        assert set(scores.tolist()) == {0.25, 1.0}
        assert abs(int((scores > 0.5).sum()) * 2 - len(scores)) <= 1, "every second is an inlier"
    with h5py.File(out / "matches.h5") as file:
        kept: list[str] = []
        file.visititems(lambda name, item: kept.append(name) if "matches0" in item else None)
    assert sorted(kept) == sorted("/".join(n.replace("/", "-") for n in pair) for pair in pairs)


def test_global_descriptors_and_intrinsics_are_those_of_the_atlas(
    atlas: Path, tmp_path: Path
) -> None:
    out = exported(atlas, tmp_path / "out", "--text")
    stored = pq.read_table(atlas / "descriptors/netvlad-lite").to_pydict()
    of = dict(zip(stored["image_id"], stored["descriptor"], strict=True))
    with h5py.File(out / "global.h5") as file:
        vector = file["b_c/002.jpg/global_descriptor"][:]
    assert vector.shape == (DIMENSION,)
    np.testing.assert_array_equal(vector, np.array(of["id-b c/002.jpg"], np.float32))
    model = pycolmap.Reconstruction(str(out / "sparse" / "0"))
    cameras = {image.name: model.camera(image.camera_id) for image in model.images.values()}
    lines = (out / "images_with_intrinsics.txt").read_text().splitlines()
    assert len(lines) == len(cameras)
    for line in lines:
        name, kind, width, height, *params = line.split()
        read = pycolmap.Camera(
            model=kind, width=int(width), height=int(height), params=np.array(params, float)
        )
        assert read.params.tolist() == cameras[name].params.tolist()
        assert (read.width, read.height) == (WIDTH, HEIGHT)


def test_the_corner_of_the_picture_lies_half_a_pixel_before_the_first_centre(
    tmp_path: Path,
) -> None:
    keypoints = np.array([[0, 0, 2, np.pi / 2], [4000.25, 3000.5, 8, -np.pi]], np.float32)
    descriptors = np.array([[3, 4], [0, 0]], np.uint8)
    with h5py.File(tmp_path / "features.h5", "w") as file:
        features = LocalFeatures(keypoints, descriptors)
        hloc_files.write_features(file, "drive one/a.jpg", features, (8000, 6000))
        group = file["drive one"]["a.jpg"]
        # In float16 the second would lie at (4000, 3000).
        assert group["keypoints"][:].tolist() == [[-0.5, -0.5], [3999.75, 3000.0]]
        np.testing.assert_allclose(group["descriptors"], [[0.6, 0], [0.8, 0]], atol=3e-4)
        assert group["scales"][:].tolist() == [2, 8]
        np.testing.assert_allclose(group["oris"], [90, -180], rtol=1e-6)
        assert group["image_size"][:].tolist() == [8000, 6000]


@pytest.mark.parametrize(("count", "kind"), [(32767, np.int16), (40000, np.int32)])
def test_a_partner_beyond_what_int16_holds_is_written_in_int32(
    tmp_path: Path, count: int, kind: type
) -> None:
    matches = np.array([[0, count - 1], [2, 7]], np.uint32)
    with h5py.File(tmp_path / "matches.h5", "w") as file:
        scores = np.array([1.0, 0.5])
        hloc_files.write_matches(file, "x/a.jpg", "y/b.jpg", matches, scores, (3, count))
        group = file["x-a.jpg/y-b.jpg"]
        assert group["matches0"].dtype == kind
        assert group["matches0"][:].tolist() == [count - 1, -1, 7]
        assert group["matching_scores0"][:].tolist() == [1, 0, 0.5]


def test_names_that_are_one_without_slashes_are_refused() -> None:
    hloc_files.require_distinct(["a/b.jpg", "a/c.jpg", "a_b.jpg"])
    with pytest.raises(UserError, match=r"a/b\.jpg from a-b\.jpg: rename one"):
        hloc_files.require_distinct(["a/b.jpg", "a-b.jpg"])


def test_a_camera_is_a_line_that_gives_every_number_back() -> None:
    camera = Camera("SIMPLE_RADIAL", 640, 480, (1 / 3, 320.1, 240.0, -1e-17), True)
    name, model, *numbers = hloc_files.camera_line("a.jpg", camera).split()
    assert (name, model, [float(n) for n in numbers[2:]]) == (
        "a.jpg", "SIMPLE_RADIAL", list(camera.params),
    )  # fmt: skip
    assert numbers[:2] == ["640", "480"]


def test_features_that_are_not_those_of_the_model_are_one_line(atlas: Path) -> None:
    model = pycolmap.Reconstruction(str(atlas / "model" / "0"))
    image = next(image for image in model.images.values() if image.name == "000.jpg")
    point = image.points2D[3]
    point.xy = point.xy + [0.5, 0.0]
    contents = MapContents(AtlasStore.open(str(atlas), create=False), {"id-000.jpg": "000.jpg"})
    with pytest.raises(UserError, match=r"keypoints of 000\.jpg are not those of the model"):
        list(contents.features(model))


@pytest.mark.medium
def test_a_photograph_of_the_map_as_a_query_lies_where_the_map_has_it(
    built_atlas: Path, rendered_city: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the rules of hloc's localize_sfm: keypoints + 0.5, points of matched keypoints, PnP."""
    queries = tmp_path / "photographs"
    queries.mkdir()
    poses = pq.read_table(built_atlas / "poses.parquet").to_pylist()
    of = next(row for row in poses if row["model"] == 0)
    data = (rendered_city / "images" / of["name"]).read_bytes()
    (queries / "one more.jpg").write_bytes(data)
    (queries / "torn.jpg").write_bytes(data[:200])
    out = tmp_path / "out"
    words = ["--atlas", str(built_atlas), "--to", "hloc", "--output", str(out)]
    assert main(["export", *words, "--queries", str(queries)]) == 2
    said = capsys.readouterr()
    assert "1 queries in" in said.out
    assert "torn.jpg" in said.err
    (line,) = (out / "queries/queries_with_intrinsics.txt").read_text().splitlines()
    name, kind, width, height, *params = line.split(" ")
    assert name == "query/one_more.jpg"
    camera = pycolmap.Camera(
        model=kind, width=int(width), height=int(height), params=np.array(params, float)
    )
    model = pycolmap.Reconstruction(str(out / "sparse" / "0"))
    images = {image.name: image for image in model.images.values()}
    with h5py.File(out / "queries/features.h5") as file:
        keypoints = file[name]["keypoints"][:] + 0.5
    seen, shown = [], []
    for pair in (out / "queries/pairs.txt").read_text().splitlines():
        query, other = pair.split(" ")
        assert query == name
        points = images[other].points2D
        for at, partner in read_matches(out / "queries/matches.h5", query, other)[0]:
            if points[partner].has_point3D():
                seen.append(keypoints[at])
                shown.append(model.point3D(points[partner].point3D_id).xyz)
    found = pycolmap.estimate_and_refine_absolute_pose(
        np.array(seen), np.array(shown), camera, {"ransac": {"max_error": 12.0, "random_seed": 0}}
    )
    pose, known = found["cam_from_world"], images[of["name"]].cam_from_world()
    between = pose * known.inverse()
    assert np.linalg.norm(between.translation) < 0.02
    assert np.degrees(between.rotation.angle()) < 0.1
