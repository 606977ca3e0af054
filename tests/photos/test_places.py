from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vladmap.geodesy.wgs84 import ecef_on_ellipsoid
from vladmap.photos.places import (
    Places,
    list_photos,
    read_places,
    read_split,
    within,
)
from vladmap.schemas.rejects import UserError

# Two photographs 14.87 m apart, west and east of 12 degrees east, where zone 32 meets zone 33; and
# one in zone 33 whose east and north are the first one's: the tools that read these two alone take
# it for the same place.
WEST = ("0722901.49", "5342881.78", "32", "U")
EAST = ("0277098.51", "5342881.78", "33", "U")
ALIAS = ("0722901.49", "5342881.78", "33", "U")


def name(
    place: tuple[str, str, str, str] = ("", "", "", ""),
    *,
    latitude: str = "",
    longitude: str = "",
    heading: str = "",
    note: str = "",
    pano: str = "p",
) -> str:
    fields = [*place, latitude, longitude, pano, "", heading, "", "", "", "", note]
    return "@" + "@".join(fields) + "@.jpg"


def folder(root: Path, *names: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for each in names:
        (root / each).write_bytes(b"")
    return root


def test_positives_are_found_across_a_zone_boundary_and_only_there(tmp_path: Path) -> None:
    queries = read_places(folder(tmp_path / "queries", name(WEST)))
    database = read_places(folder(tmp_path / "database", name(ALIAS), name(EAST)))
    assert [path.name for path in database.paths] == [name(EAST), name(ALIAS)]
    assert within(queries, database, 25)[0].tolist() == [0]
    assert within(queries, database, 14.8)[0].tolist() == []
    apart = np.linalg.norm(queries.positions - database.positions, axis=1)
    assert apart[0] == pytest.approx(14.867, abs=0.02)
    assert apart[1] > 400_000


def test_the_band_letter_tells_the_hemisphere(tmp_path: Path) -> None:
    south = read_places(folder(tmp_path / "s", name(("777406.73", "6244879.03", "32", "H"))))
    expected = ecef_on_ellipsoid(np.array([-33.9]), np.array([11.9999]))
    assert south.positions == pytest.approx(expected, abs=0.02)


def test_the_letter_may_stand_beside_the_zone(tmp_path: Path) -> None:
    apart, joined = (
        read_places(folder(tmp_path / part, name(("722901", "5342881", *zone))))
        for part, zone in (("a", ("32", "U")), ("b", ("32U", "")))
    )
    assert np.array_equal(apart.positions, joined.positions)


def test_latitude_and_longitude_count_where_the_zone_is_missing(tmp_path: Path) -> None:
    both = folder(
        tmp_path, name(WEST), name(("1", "2", "", ""), latitude="48.2", longitude="11.9999")
    )
    places = read_places(both)
    assert np.linalg.norm(places.positions[0] - places.positions[1]) < 0.02


def test_condition_heading_and_order_come_from_the_names(tmp_path: Path) -> None:
    folder(tmp_path / "b", name(WEST, note="night", heading="271.5", pano="2"))
    folder(tmp_path / "a", name(EAST, pano="1"))
    folder(tmp_path, "notes.txt", "._" + name(WEST))
    places = read_places(tmp_path)
    assert [path.parent.name for path in places.paths] == ["a", "b"]
    assert places.conditions == ("", "night")
    assert np.isnan(places.headings[0])
    assert places.headings[1] == 271.5
    assert places.take([1]).conditions == ("night",)
    assert len(places.take([1])) == 1


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (name(("722901", "5342881", "", "")), "neither a UTM zone"),
        (name(("722901", "5342881", "61", "U")), "neither a UTM zone"),
        (name(("722901", "5342881", "32", "I")), "neither a UTM zone"),
        ("IMG_0001.jpg", "neither a UTM zone"),
        (name(("nan", "5342881", "32", "U")), "'nan' in the name is not a coordinate"),
        (name(("here", "5342881", "32", "U")), "'here' in the name is not a coordinate"),
        (name(("1e12", "5342881", "32", "U")), "no place in the UTM zone"),
        (name(latitude="95", longitude="11"), "neither a UTM zone"),
    ],
)
def test_a_name_without_a_place_is_named(bad: str, says: str, tmp_path: Path) -> None:
    folder(tmp_path, name(WEST), bad)
    with pytest.raises(UserError, match=says) as raised:
        read_places(tmp_path)
    assert bad in str(raised.value)


def test_a_split_has_its_database_and_its_queries(tmp_path: Path) -> None:
    folder(tmp_path / "images/val/database", name(EAST), name(ALIAS))
    folder(tmp_path / "images/val/queries", name(WEST))
    database, queries = read_split(tmp_path, "val")
    assert (len(database), len(queries)) == (2, 1)
    with pytest.raises(UserError, match=r"splits of .*: val"):
        read_split(tmp_path, "test")


def test_a_folder_without_photographs_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no photographs"):
        read_places(tmp_path)
    with pytest.raises(UserError, match="not a folder"):
        read_places(tmp_path / "nowhere")


def test_rows_within_reach_are_ascending_and_the_border_counts() -> None:
    def line(*metres: float) -> Places:
        positions = np.array([[6_378_137.0, each, 0.0] for each in metres])
        count = len(metres)
        return Places((Path("p"),) * count, positions, ("",) * count, np.full(count, np.nan))

    found = within(line(0, 100, 1000), line(110, 25, -25, 90, 26), 25)
    assert [rows.tolist() for rows in found] == [[1, 2], [0, 3], []]
    assert all(rows.dtype == np.int64 for rows in found)


def test_linked_folders_are_listed_and_thumbnails_are_not(tmp_path: Path) -> None:
    """Issue 19, 10: in the sets of an evaluation as in a collection."""
    folder(tmp_path / "set", "a.jpg", ".b.jpg")
    folder(tmp_path / "set" / "@eaDir", "a.jpg")
    folder(tmp_path / "far", "c.jpg")
    (tmp_path / "set" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "round").symlink_to(tmp_path / "set")
    found = [
        path.relative_to(tmp_path / "set").as_posix() for path in list_photos(tmp_path / "set")
    ]
    assert found == ["a.jpg", "far/c.jpg"]
