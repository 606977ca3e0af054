"""`vladmap export --to g2o`: the poses of the model, edges that agree with them, and back again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.transform import Rotation

from tests.exports.test_colmap import write_atlas
from vladmap.atlas import storage
from vladmap.atlas.commit import commit_shard
from vladmap.atlas.store import AtlasStore
from vladmap.exports.g2o import information, read_g2o
from vladmap.exports.models import read_model
from vladmap.jobs.main import main
from vladmap.mapping.georegister import centres_and_rotations
from vladmap.schemas.records import NO_CELL, Task
from vladmap.schemas.rejects import UserError
from vladmap.schemas.tables import TWO_VIEWS

SHARD = "g0000-00000-none-00000"


def truth(root: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    return centres_and_rotations(read_model(AtlasStore.open(str(root), create=False), 0))


def write_pairs(root: Path, verdict: str | None = "kept") -> list[str]:
    """Neighbours' true relative poses, judged, and one pair that is not trusted; the names."""
    names, centre, turn = truth(root)
    poses = storage.read_table(f"{root}/poses.parquet")
    ids = dict(zip(poses["name"].to_pylist(), poses["image_id"].to_pylist(), strict=True))
    rows = []
    for a, b in [*((k, k + 1) for k in range(len(names) - 1)), (0, 7)]:
        # turn is world_from_camera.
        relative = turn[b].T @ turn[a]
        moved = turn[b].T @ (centre[a] - centre[b])
        x, y, z, w = Rotation.from_matrix(relative).as_quat()
        tx, ty, tz = moved / np.linalg.norm(moved)
        rows.append(
            {
                **dict.fromkeys(TWO_VIEWS.names), "image_id_a": ids[names[a]],
                "image_id_b": ids[names[b]], "configuration": "CALIBRATED", "matches": [],
                "inliers": [], "qw": w, "qx": x, "qy": y, "qz": z, "tx": tx, "ty": ty, "tz": tz,
                "verdict": verdict and ("depth" if (a, b) == (0, 7) else verdict),
            }
        )  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=TWO_VIEWS)
    commit_shard(
        str(root), "verify", Task(SHARD, NO_CELL, f"two_views/{SHARD}.parquet", "made"), table,
        counts={"pairs": len(rows), "verified": len(rows)},
    )  # fmt: skip
    return sorted(names)


def exported(root: Path, output: Path) -> list[list[str]]:
    words = ["--atlas", str(root), "--to", "g2o", "--output", str(output)]
    assert main(["export", *words]) == 0
    return [line.split() for line in (output / "pose_graph.g2o").read_text().splitlines()]


def matrix(words: list[str]) -> np.ndarray:
    values = np.array(words, float)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_quat(values[3:7]).as_matrix(), values[:3]
    return pose


@pytest.mark.medium
def test_vertices_are_the_models_poses_and_edges_carry_one_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = write_atlas(tmp_path, monkeypatch)
    names = write_pairs(atlas)
    lines = exported(atlas, tmp_path / "out")
    vertices = [matrix(line[2:]) for line in lines if line[0] == "VERTEX_SE3:QUAT"]
    model, centre, turn = truth(atlas)
    for name, pose in zip(names, vertices, strict=True):
        at = model.index(name)
        np.testing.assert_allclose(pose[:3, 3], centre[at], atol=1e-6)
        np.testing.assert_allclose(pose[:3, :3], turn[at], atol=1e-6)
    edges = [line for line in lines if line[0] == "EDGE_SE3:QUAT"]
    # Of the eight photographs' eight pairs one is not trusted.
    assert len(edges) == 7
    for line in edges:
        assert len(line) == 3 + 7 + 21
        a, b = int(line[1]), int(line[2])
        np.testing.assert_allclose(vertices[a] @ matrix(line[3:10]), vertices[b], atol=1e-5)
    assert ["FIX", "0"] in lines
    told = json.loads((tmp_path / "out" / "vertices.json").read_text())
    assert [row["name"] for row in told["vertices"]] == names

    read = read_g2o(tmp_path / "out" / "pose_graph.g2o")
    assert read.ids.tolist() == list(range(8))
    np.testing.assert_allclose(read.position, [pose[:3, 3] for pose in vertices])
    back = Rotation.from_quat(read.rotation[:, [1, 2, 3, 0]]).as_matrix()
    np.testing.assert_allclose(back, [pose[:3, :3] for pose in vertices], atol=1e-8)


@pytest.mark.medium
def test_pairs_that_nobody_has_judged_make_no_edges_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas = write_atlas(tmp_path, monkeypatch)
    write_pairs(atlas, None)
    lines = exported(atlas, tmp_path / "out")
    assert {line[0] for line in lines} == {"VERTEX_SE3:QUAT", "FIX"}
    assert "run `vladmap reconstruct`" in capsys.readouterr().out


def test_information_is_translation_first_and_weakest_along_the_baseline() -> None:
    """10 m ahead: 3 m along, 0.52 m across, one degree of each rotation."""
    (matrix,) = information(np.array([[0.0, 0.0, 10.0]]))
    sigmas = np.diag(matrix) ** -0.5
    np.testing.assert_allclose(sigmas[:3], [np.radians(30), np.radians(30), 3.0])
    np.testing.assert_allclose(sigmas[3:], np.radians(1.0))
    np.testing.assert_allclose(matrix, matrix.T)


def test_a_solved_file_may_have_other_lines_and_any_order(tmp_path: Path) -> None:
    path = tmp_path / "solved.g2o"
    path.write_text(
        "# solved\nFIX 3\nVERTEX_SE3:QUAT 7 1 2 3 0 0 0 2\n\nVERTEX_SE3:QUAT 3 0 0 0 0 0 0.6 0.8\n"
        "EDGE_SE3:QUAT 3 7 1 2 3 0 0 0 1\n"
    )
    with pytest.raises(UserError, match=r"line 3: not"):
        read_g2o(path)
    path.write_text(path.read_text().replace("0 0 0 2", "0 0 0 1"))
    read = read_g2o(path)
    assert read.ids.tolist() == [3, 7]
    assert read.position.tolist() == [[0, 0, 0], [1, 2, 3]]
    np.testing.assert_allclose(read.rotation[0], [0.8, 0, 0, 0.6])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no VERTEX_SE3:QUAT"),
        ("VERTEX_SE2 0 1 2 3\n", "three dimensions"),
        ("VERTEX_SE3:QUAT 0 1 2 nan 0 0 0 1\n", "line 1"),
        ("VERTEX_SE3:QUAT x 1 2 3 0 0 0 1\n", "line 1"),
        ("VERTEX_SE3:QUAT 0 1 2 3\n", "line 1"),
        ("VERTEX_SE3:QUAT 0 1 2 3 0 0 0 1\n" * 2, "two poses of one id"),
    ],
)
def test_what_is_no_pose_graph_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "bad.g2o"
    path.write_text(text)
    with pytest.raises(UserError, match=why):
        read_g2o(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_g2o(tmp_path / "none.g2o")
