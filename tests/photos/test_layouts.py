from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.photos.test_places import EAST, WEST, folder, name
from vladmap.photos.layouts import (
    EvaluationSet,
    detect,
    read_csv,
    read_frames,
    read_msls,
    read_utm,
    split_by_time,
)
from vladmap.schemas import tables
from vladmap.schemas.rejects import UserError

# Some 11 m north of one another.
STEP = 1e-4


def found(chosen: EvaluationSet) -> list[list[int]]:
    return [rows.tolist() for rows in chosen.positives]


def test_frames_correspond_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = [f"{n}.jpg" for n in (1, 2, 9, 10, 11)]
    folder(tmp_path / "database", *names)
    folder(tmp_path / "queries", *names)
    chosen = read_frames(tmp_path, 1)
    assert [path.stem for path in chosen.database.paths] == ["1", "2", "9", "10", "11"]
    assert found(chosen) == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4]]
    exact = read_frames(tmp_path, 0)
    assert found(exact) == [[0], [1], [2], [3], [4]]
    assert (chosen.protocol, exact.protocol) == ("within 1 frames", "in the same frame")
    near = chosen.near(np.array([2]), np.array([[0, 1, 2, 3, 4]]))
    assert near.tolist() == [[False, True, True, True, False]]
    assert np.isnan(chosen.distances_m(np.array([0]), np.array([0]))).all()


def test_a_missing_frame_is_not_passed_over(tmp_path: Path) -> None:
    folder(tmp_path / "database", "1.jpg", "2.jpg")
    folder(tmp_path / "queries", "2.jpg")
    with pytest.raises(UserError, match=r"2 files in database/ and 1 in queries/"):
        read_frames(tmp_path, 1)


def test_utm_folders_are_read_with_and_without_splits(tmp_path: Path) -> None:
    for root in (tmp_path / "a/images/test", tmp_path / "b"):
        folder(root / "database", name(EAST))
        folder(root / "queries", name(WEST, note="night"))
    for root in (tmp_path / "a", tmp_path / "b"):
        chosen = read_utm(root, "test", 25)
        assert found(chosen) == [[0]]
        assert chosen.queries.conditions == ("night",)
        assert chosen.near(np.array([0]), np.array([[0]])).tolist() == [[True]]
        apart = chosen.distances_m(np.array([0]), np.array([0]))
        assert apart == pytest.approx([14.87], abs=0.02)


def csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_csv_says_which_photographs_are_the_queries(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "set.csv",
        "path;Latitude;longitude;condition;side",
        "b.jpg;48.0001;16;snow;query",
        "a.jpg;48;16;;database",
        "c.jpg;48.5;16;;database",
        "d.jpg;0;0;fog;query",
        "e.jpg;north;16;fog;query",
    )
    chosen = read_csv(path, 25)
    assert [p.name for p in chosen.database.paths] == ["a.jpg", "c.jpg"]
    assert chosen.database.paths[0] == tmp_path / "a.jpg"
    assert found(chosen) == [[0]]
    assert chosen.queries.conditions == ("snow",)
    assert chosen.skipped == {"no position": 2}
    assert chosen.protocol == "within 25 m"


def test_without_sides_each_photograph_is_looked_for_among_the_others(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "set.csv",
        "path,latitude,longitude",
        "a.jpg,48,16",
        "b.jpg,48.0001,16",
        "c.jpg,49,16",
    )
    chosen = read_csv(path, 25)
    assert chosen.leave_one_out
    assert found(chosen) == [[1], [0], []]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["path,lat", "a.jpg,48"], "lacks the columns latitude, longitude; it has path, lat"),
        (["path,latitude,longitude,side", "a.jpg,48,16,left"], "not 'left'"),
        (["path,latitude,longitude", "a.jpg,,"], "0 photographs with a position"),
        (
            ["path,latitude,longitude,side", "a.jpg,48,16,query", "b.jpg,x,16,database"],
            "left for the database: skipped no position: 1",
        ),
        ([""], "not a readable CSV"),
    ],
)
def test_a_csv_that_cannot_be_used_says_why(lines: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        read_csv(csv(tmp_path / "set.csv", *lines), 25)


def msls_city(root: Path, *, pano: str = "False") -> None:
    for side, rows in (
        ("database", [("d1", 16.0, 48.0), ("d2", 16.0, 48.5)]),
        ("query", [("q1", 16.0, 48.0 + STEP), ("q2", 16.0, 48.5), ("q3", 0.0, 0.0)]),
    ):
        (root / side).mkdir(parents=True)
        lines = ["," + "key,lon,lat,ca,captured_at,pano"]
        lines += [f"{n},{k},{x},{y},90.5,2020-01-01,{pano}" for n, (k, x, y) in enumerate(rows)]
        csv(root / side / "raw.csv", *lines)
        lines = [",key,easting,northing,unique_cluster,night,control_panel,view_direction"]
        lines += [f"{n},{k},1,2,3,{k == 'q1'},False,Forward" for n, (k, _, _) in enumerate(rows)]
        csv(root / side / "postprocessed.csv", *lines)


def test_msls_has_its_splits_by_city_and_night_as_a_condition(tmp_path: Path) -> None:
    for city in ("sf", "cph", "boston"):
        msls_city(tmp_path / "train_val" / city)
    chosen = read_msls(tmp_path, "val", 25)
    assert found(chosen) == [[0, 2], [1, 3]] * 2
    assert chosen.queries.conditions == ("night", "day") * 2
    assert chosen.queries.headings.tolist() == [90.5] * 4
    expected = tmp_path / "train_val/cph/query/images/q1.jpg"
    assert chosen.queries.paths[0] == expected
    assert chosen.skipped == {"no position": 2}
    assert len(read_msls(tmp_path, "train", 25).queries) == 2
    assert len(read_msls(tmp_path / "train_val/boston", "test", 25).queries) == 2
    with pytest.raises(UserError, match="no cities of the split 'test'"):
        read_msls(tmp_path, "test", 25)


def test_panoramas_are_skipped_and_counted(tmp_path: Path) -> None:
    msls_city(tmp_path, pano="True")
    with pytest.raises(UserError, match="skipped panorama: 5"):
        read_msls(tmp_path, "val", 25)


def atlas_images(*rows: tuple[str, int | None, float | None, str | None]) -> pa.Table:
    columns = {
        "image_id": [row[0] for row in rows],
        "uri": [f"/photos/{row[0]}.jpg" for row in rows],
        "captured_at": [
            None if row[1] is None else datetime(2024, 5, row[1], tzinfo=UTC) for row in rows
        ],
        "latitude": [row[2] for row in rows],
        "longitude": [None if row[2] is None else 16.0 for row in rows],
        "heading_deg": [90.0] * len(rows),
        "duplicate_of": [row[3] for row in rows],
    }
    names = ["image_id", "uri", "captured_at", "latitude", "longitude", "heading_deg"]
    schema = pa.schema([tables.IMAGES.field(name) for name in (*names, "duplicate_of")])
    return pa.table(columns, schema=schema)


ATLAS = atlas_images(
    ("a", 1, 48.0, None),
    ("b", 2, 48.0 + STEP, None),
    ("c", 3, 48.0, None),
    ("d", 3, 48.5, None),
    ("e", 3, 48.0, "c"),
    ("f", None, 48.0, None),
    ("g", 3, None, None),
)


def test_an_atlas_is_split_at_an_instant(tmp_path: Path) -> None:
    chosen = split_by_time(ATLAS, 25, since=datetime(2024, 5, 3, tzinfo=UTC))
    assert [path.stem for path in chosen.database.paths] == ["a", "b"]
    assert [path.stem for path in chosen.queries.paths] == ["c", "d"]
    assert found(chosen) == [[0, 1], []]
    assert chosen.skipped == {"exact duplicate": 1, "no capture time": 1, "no position": 1}
    assert chosen.queries.headings.tolist() == [90, 90]


def test_an_atlas_gives_its_last_share_to_the_queries() -> None:
    chosen = split_by_time(ATLAS, 25, share=0.25)
    # Two were captured at that instant, and neither is older than the other.
    assert [path.stem for path in chosen.queries.paths] == ["c", "d"]
    with pytest.raises(UserError, match="no image was captured before"):
        split_by_time(ATLAS, 25, since=datetime(2024, 1, 1, tzinfo=UTC))
    with pytest.raises(UserError, match="no image was captured from 2030"):
        split_by_time(ATLAS, 25, since=datetime(2030, 1, 1, tzinfo=UTC))


def test_layouts_are_told_apart(tmp_path: Path) -> None:
    folder(tmp_path / "utm/images/val/database", name(EAST))
    folder(tmp_path / "plain/database", name(EAST))
    folder(tmp_path / "plain/queries", name(WEST))
    folder(tmp_path / "frames/database", "1.jpg")
    folder(tmp_path / "frames/queries", "1.jpg")
    msls_city(tmp_path / "msls/train_val/cph")
    folder(tmp_path / "atlas", "atlas.json")
    folder(tmp_path, "set.CSV")
    assert {
        each: detect(tmp_path / each)
        for each in ("utm", "plain", "frames", "msls", "msls/train_val/cph", "atlas", "set.CSV")
    } == {
        "utm": "utm",
        "plain": "utm",
        "frames": "frames",
        "msls": "msls",
        "msls/train_val/cph": "msls",
        "atlas": "atlas",
        "set.CSV": "csv",
    }
    with pytest.raises(UserError, match="no layout that is known"):
        detect(folder(tmp_path / "empty"))
    with pytest.raises(UserError, match="does not exist"):
        detect(tmp_path / "nowhere")


def test_drives_are_those_of_the_table_and_one_a_folder_of_frames(tmp_path: Path) -> None:
    lines = ["path,latitude,longitude,side,sequence,frame"]
    lines += ["b.jpg,48,16,database,x,10", "a.jpg,48,16,database,x,9", "c.jpg,48,16,database,y,"]
    lines += ["q.jpg,48,16,query,,4"]
    chosen = read_csv(csv(tmp_path / "set.csv", *lines), 25)
    assert chosen.database.drives == ("x", "x", "")  # c has no place in its drive
    assert chosen.database.moments is not None
    assert chosen.database.moments.tolist() == [9, 10, 0]
    assert chosen.queries.drives == ("",)
    for side in ("database", "queries"):
        (tmp_path / side).mkdir()
        for number in (9, 10, 11):
            (tmp_path / side / f"{number}.jpg").touch()
    frames = read_frames(tmp_path, 1).queries.take([2, 0])
    assert frames.drives == ("frames", "frames")
    assert frames.moments is not None
    assert frames.moments.tolist() == [2, 0]


def test_msls_has_its_drives_in_a_table_of_their_own(tmp_path: Path) -> None:
    for city in ("sf", "cph"):
        msls_city(tmp_path / "train_val" / city)
    drives = tmp_path / "train_val/cph/query/seq_info.csv"
    csv(drives, ",key,sequence_key,frame_number", "0,q2,s,5", "1,q1,s,7")
    chosen = read_msls(tmp_path, "val", 25)
    assert chosen.queries.drives == ("s", "s", "", "")  # of the other city none are known
    assert chosen.queries.moments is not None
    assert chosen.queries.moments.tolist() == [7, 5, 0, 0]
    assert chosen.database.drives == ()
