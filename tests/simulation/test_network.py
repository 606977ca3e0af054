"""A street network on disk: its bytes, its truth, its drives as ingest finds them, its faults."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import MadeOnce
from vladmap import Atlas
from vladmap.jobs.main import main
from vladmap.schemas.rejects import UserError
from vladmap.schemas.truth_tables import TRUTH, TRUTH_PAIRS
from vladmap.simulation.faults import (
    again,
    backwards,
    borrowed,
    frozen,
    second_camera,
    with_faults,
)
from vladmap.simulation.names import FAULTS
from vladmap.simulation.network import LENSES, NetworkSettings, blocks_for, plan_network
from vladmap.simulation.photographing import write_network

SETTINGS = NetworkSettings(
    images=40,
    seed=7,
    drives=3,
    blocks=(1, 1),
    cameras=("standard", "fisheye", "narrow"),
    conditions=("day", "winter"),
    gps="canyon",
    faults=("clocks",),
)
PLANNED = NetworkSettings(images=600, seed=3, drives=3, gps="good")


def write(out: Path, workers: int = 2) -> Path:
    write_network(out, SETTINGS, workers=workers)
    return out


@pytest.fixture(scope="session")
def network(made_once: MadeOnce) -> Path:
    return made_once("network", write)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_one_process_and_two_write_the_same_bytes(network: Path, tmp_path: Path) -> None:
    assert contents(write(tmp_path / "one", workers=1)) == contents(network)


@pytest.mark.medium
def test_truth_names_every_photograph_and_its_camera(network: Path) -> None:
    table = pq.read_table(network / "truth.parquet")
    assert table.schema.equals(TRUTH)
    rows = {row["path"]: row for row in table.to_pylist()}
    photographs = {
        path.relative_to(network / "images").as_posix(): path
        for path in (network / "images").rglob("*.jpg")
    }
    assert sorted(rows) == sorted(photographs)
    drives = Counter(path.split("/")[0] for path in rows)
    assert drives == {"drive-0": 13, "drive-0-second": 13, "drive-1": 13, "drive-2": 14}
    for path, row in rows.items():
        assert Image.open(photographs[path]).size == (row["width"], row["height"])
        lens = LENSES[SETTINGS.cameras[int(path[6])]]
        assert (row["camera_model"], row["fx"]) == (lens.model, lens.fx)


@pytest.mark.medium
def test_true_pairs_are_sorted_shares_of_photographs_that_are_there(network: Path) -> None:
    table = pq.read_table(network / "truth_pairs.parquet")
    assert table.schema.equals(TRUTH_PAIRS)
    ids = set(pq.read_table(network / "truth.parquet")["image_id"].to_pylist())
    rows = table.to_pylist()
    keys = [(row["image_id_a"], row["image_id_b"]) for row in rows]
    assert keys == sorted(set(keys))
    assert all(a < b and {a, b} <= ids for a, b in keys)
    for row in rows:
        assert 0.01 <= row["share"] == min(row["share_a"], row["share_b"])
        assert max(row["share_a"], row["share_b"]) <= 1.0
    # Photographs that follow each other have much in common.
    truth = pq.read_table(network / "truth.parquet").to_pylist()
    by_name = {row["path"]: row["image_id"] for row in truth}
    share = {key: row["share"] for key, row in zip(keys, rows, strict=True)}
    for k in range(8):
        one, other = sorted(by_name[f"drive-0/{n:06d}.jpg"] for n in (k, k + 1))
        assert share[one, other] > 0.4


@pytest.mark.medium
def test_ingest_finds_the_drives(network: Path, tmp_path: Path) -> None:
    words = ["--images", str(network / "images"), "--atlas", str(tmp_path / "atlas")]
    assert main(["ingest", *words, "-q"]) == 0
    images = Atlas(tmp_path / "atlas").images(["name", "sequence_id", "sequence_index"])
    folders = images["name"].str.split("/").str[0]
    assert len(images) == 53
    assert images.groupby("sequence_id")["name"].count().sort_values().tolist() == [13, 13, 13, 14]
    assert (images.groupby(folders)["sequence_id"].nunique() == 1).all()
    ordered = images.sort_values("sequence_index").groupby("sequence_id")["name"].agg(list)
    assert all(names == sorted(names) for names in ordered)


def test_a_network_has_streets_enough_for_its_photographs() -> None:
    assert blocks_for(100) == (1, 1)
    # 3 x 3 blocks have 12 streets of 74 m and 12 of 88 m; each is driven 1.6 times: 3,110 m.
    assert blocks_for(1000) == (3, 3)
    assert sum(len(drive) for drive in plan_network(NetworkSettings(images=5000, drives=8))) == 5000


def test_cities_are_kilometres_apart_and_never_see_each_other() -> None:
    drives = plan_network(replace(PLANNED, cities=2, cities_apart_m=3000.0))
    first, second, third = (drive.poses.centre for drive in drives)
    assert np.linalg.norm(first[:, None] - second, axis=-1).min() > 2000.0
    assert np.linalg.norm(first[:, None] - third, axis=-1).min() < 50.0
    assert drives[0].place.seed != drives[1].place.seed


def test_the_last_drives_lack_gps_and_the_one_before_them_is_shifted() -> None:
    plain = plan_network(PLANNED)
    drives = plan_network(replace(PLANNED, drives_without_gps=1, gps_shift_m=20.0))
    assert not any(drives[2].fixes)
    assert drives[0].fixes == plain[0].fixes
    metres = np.radians(1.0) * 6_378_137.0 * np.cos(np.radians(48.2082))
    for shifted, usual in zip(drives[1].fixes, plain[1].fixes, strict=True):
        assert (shifted is None) == (usual is None)
        if shifted is not None and usual is not None:
            assert (shifted.longitude - usual.longitude) * metres == pytest.approx(20.0, rel=0.01)


def test_a_drive_backwards_has_its_places_reversed_and_its_times_forwards() -> None:
    drive = plan_network(PLANNED)[2]
    turned = backwards(drive)
    np.testing.assert_array_equal(turned.poses.centre, drive.poses.centre[::-1])
    assert turned.fixes == drive.fixes[::-1]
    np.testing.assert_array_equal(turned.seconds, drive.seconds)
    # The camera looks against the way that it moves.
    steps = np.diff(turned.poses.centre[:, :2], axis=0)
    ahead = turned.poses.rotation[1:, 2, :2]
    assert ((steps * ahead).sum(1) < 0).mean() > 0.95


def test_frozen_positions_are_the_same_for_a_third_of_a_short_drive() -> None:
    drive = plan_network(PLANNED)[0]
    still = frozen(drive)
    same = [a is not None and a == b for a, b in zip(still.fixes, still.fixes[1:], strict=False)]
    assert sum(same) * 0.375 == pytest.approx(drive.seconds[-1] / 3.0, abs=1.0)
    changed = [a != b for a, b in zip(still.fixes, drive.fixes, strict=True)]
    assert np.flatnonzero(changed).size <= sum(same) + 1


def test_a_drive_may_have_the_positions_of_another() -> None:
    drives = plan_network(PLANNED)
    lie = borrowed(drives[2], drives[0])
    assert lie.fixes == drives[0].fixes
    np.testing.assert_array_equal(lie.poses.centre, drives[2].poses.centre)


def test_a_second_camera_has_the_places_of_the_first_and_a_clock_one_hour_ahead() -> None:
    drive = plan_network(PLANNED)[0]
    other = second_camera(drive)
    np.testing.assert_array_equal(other.poses.centre, drive.poses.centre)
    aside = (other.poses.headings() - drive.poses.headings() + 180.0) % 360.0 - 180.0
    np.testing.assert_allclose(aside, -50.0, atol=0.5)
    assert {(other.moment(k) - drive.moment(k)).total_seconds() for k in (0, 9)} == {3600.0}
    assert other.model != drive.model


def test_faults_can_be_had_all_together() -> None:
    drives = plan_network(PLANNED)
    found = with_faults(drives, FAULTS)
    assert [drive.name for drive in found] == [
        "drive-0", "drive-1", "drive-2", "drive-0-second", "drive-2-again",
    ]  # fmt: skip
    twice = again(drives[2])
    assert (twice.poses is not drives[2].poses, twice.fixes) == (True, drives[2].fixes)
    assert twice.quality != drives[2].quality
    assert with_faults(drives, ()) == drives


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"cameras": ("telescope",)}, "are no cameras"),
        ({"conditions": ("viewpoint",)}, "are no conditions"),
        ({"gps": "perfect"}, "are no GPS"),
        ({"faults": ("flood",)}, "are no faults"),
        ({"cities": 4}, "cannot visit 4 cities"),
        ({"cities": 2, "cities_apart_m": 60_000.0}, "within 50 km"),
        ({"cities": 3, "cities_apart_m": 100.0}, "1.5 km apart or more"),
        ({"images": 2}, "--images is too small"),
        ({"drives_without_gps": 4}, "cannot lack GPS"),
        ({"repeated": 1.5}, "from 0 to 1"),
        ({"blocks": (0, 3)}, "block or more"),
        ({"drives": 1, "faults": ("borrowed",)}, "where there are two"),
    ],
)
def test_settings_that_no_network_can_have_are_one_clear_line(
    tmp_path: Path, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        write_network(tmp_path, replace(SETTINGS, **settings))  # type: ignore[arg-type]


def test_photographs_that_are_there_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "images" / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match="already holds"):
        write_network(tmp_path, SETTINGS)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--gps", "canyon"], "--gps only goes with --network"),
        (["--network", "--gps-sigma-m", "2"], "--gps-sigma-m does not go with --network"),
        (["--network", "--blocks", "3"], "must be such as 4x3"),
        (["--network", "--repeated", "2"], "at most 1"),
        (["--network", "--cameras", "pinhole"], "invalid choice"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    try:
        code = main(["sample", str(tmp_path / "city"), *words])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "city").exists()
