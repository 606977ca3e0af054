"""The page as text: what it states, that hostile names stay names, that it is repeatable."""

from __future__ import annotations

import base64
import dataclasses
import html
import html.parser
import json
import pathlib
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from markupsafe import escape

from tests.reporting.html_page import Page
from tests.reporting.synthetic import HOSTILE, METRES_PER_DEGREE, loop_report, write_report
from vladmap.reporting import atlas_map as atlas_map_module
from vladmap.reporting.atlas_map import atlas_map, thinned
from vladmap.reporting.data import RouteExample, RouteStep
from vladmap.reporting.facts import facts_of
from vladmap.reporting.map_layers import places_of
from vladmap.reporting.missing import shown
from vladmap.reporting.report import render
from vladmap.schemas import tables


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(loop_report()))


def layers(data: Any) -> dict[str, int]:
    drawn = atlas_map(data, facts_of(data))
    return {layer.name: layer.count for layer in drawn.layers}


def test_the_same_data_give_the_same_bytes(tmp_path: pathlib.Path) -> None:
    for name in "ab":
        write_report(loop_report(), tmp_path / name)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["index.html"]
    assert (tmp_path / "a/index.html").read_bytes() == (tmp_path / "b/index.html").read_bytes()


def test_the_order_of_rows_does_not_matter() -> None:
    data = loop_report()
    turned = {
        name: getattr(data, name).take(np.arange(getattr(data, name).num_rows)[::-1])
        for name in ("images", "poses", "two_views", "rejects")
    }
    assert render(data) == render(dataclasses.replace(data, **turned))


def test_hostile_names_are_text_in_every_place(page: Page) -> None:
    assert page.scripts == 3  # the map's data, Bokeh and the page's own
    assert HOSTILE in page.words
    assert HOSTILE in [value for tag, key, value in page.attributes if (tag, key) == ("img", "alt")]
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    data = json.loads(re.search(r'id="map-data">(.*?)</script>', render(loop_report()), re.S)[1])
    assert HOSTILE in json.dumps(data, ensure_ascii=False).replace('\\"', '"')


def test_hostile_words_elsewhere_are_text_too() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    data = loop_report(title=evil, first_uri=evil)
    reject = {"uri": evil, "image_id": "9", "stage": evil, "reason": evil, "detail": evil}
    page = Page(
        render(
            dataclasses.replace(
                data,
                created=evil,
                rejects=pa.concat_tables([data.rejects, pa.Table.from_pylist([reject])]),
                tiles=[{"name": evil, "failure": evil}],
                merges=[{"a": evil, "b": evil, "merged": False, "reason": evil}],
                stages=[{"stage": evil, "device": evil, "unit": evil, "rate": 1.0}],
                index={"model": evil, "factory": evil},
                software={evil: evil},
                features=evil,
            )
        )
    )
    assert page.scripts == 3
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]


def test_every_picture_has_words_and_every_table_headings(page: Page) -> None:
    pictures = page.attributes
    assert sum((tag, key) == ("img", "src") for tag, key, _ in pictures) == sum(
        (tag, key) == ("img", "alt") and bool(value) for tag, key, value in pictures
    )
    scopes = [value for tag, key, value in pictures if (tag, key) == ("th", "scope")]
    assert {"col", "row"} == set(scopes)


def test_nothing_on_the_page_points_to_a_network(page: Page) -> None:
    targets = [v for _, key, v in page.attributes if key in ("src", "href", "action", "srcset")]
    assert targets
    assert all(target.startswith(("data:", "#")) for target in targets)


def test_the_cards_state_what_the_tables_hold(page: Page) -> None:
    words = page.words[: page.words.index("Map")]
    figures = {words[i]: words[i + 1 : i + 3] for i in range(len(words) - 2)}
    assert figures["Images"] == ["120", "119 with GPS"]
    assert figures["Registered"] == ["94.2 %", "113 of 120"]
    assert figures["Rejects"] == ["5", "no_features, empty_file"]
    assert figures["Index recall@10"] == ["100 %", "against exact search"]


def test_residuals_verified_pairs_and_models_of_a_collection_worked_out_by_hand() -> None:
    """Three images on a meridian, mapped 3, 4 and 5 m north of their GPS."""
    data = loop_report(3, unregistered=0, rejected=0, neighbours=2)
    latitude = np.array([10.0, 10.1, 10.2])
    moved = latitude + np.array([3.0, 4.0, 5.0]) / METRES_PER_DEGREE

    def with_columns(table: pa.Table, **columns: Any) -> pa.Table:
        for name, values in columns.items():
            at = table.column_names.index(name)
            table = table.set_column(at, name, pa.array(values, table.schema.field(name).type))
        return table

    two_views = with_columns(
        data.two_views,
        inliers=[30, 0, 25],
        configuration=["CALIBRATED", "CALIBRATED", "WATERMARK"],
    )
    facts = facts_of(
        dataclasses.replace(
            data,
            images=with_columns(data.images, latitude=latitude, longitude=[20.0] * 3),
            poses=with_columns(
                data.poses,
                latitude=moved,
                longitude=[20.0] * 3,
                model=[0, 0, 1],
                points=[100, 300, 50],
                reprojection_error_px=[1.0, 0.6, 0.5],
            ),
            two_views=two_views,
        )
    )
    np.testing.assert_allclose(facts.gps_residual_horizontal_m, [3, 4, 5], rtol=1e-5)
    assert facts.gps_residual_horizontal_median_m == pytest.approx(4, rel=1e-5)
    assert facts.verified_pairs.num_rows == 1
    first, second = facts.models
    assert (first.model, first.images, second.model, second.images) == (0, 2, 1, 1)
    assert first.reprojection_error_px == pytest.approx((100 * 1.0 + 300 * 0.6) / 400)
    assert first.gps_residual_horizontal_max_m == pytest.approx(4, rel=1e-5)


def columns(page: str, label: str) -> dict[str, list[str]]:
    """The cells under each heading of one of the page's tables."""
    table = re.search(rf'aria-label="{label}">(.*?)</table>', page, re.S)
    assert table is not None
    head, body = table[1].split("<tbody>")
    names = [html.unescape(name) for name in re.findall(r"<th [^>]*>(.*?)</th>", head)]
    rows = [
        [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[hd][ >].*?</t[hd]>", row)]
        for row in body.split("</tr>")[:-1]
    ]
    return dict(zip(names, zip(*rows, strict=True), strict=True))


@pytest.mark.parametrize("label", ["Models", "Tiles", "Merges"])
def test_no_column_of_a_table_is_empty_in_every_row(label: str) -> None:
    """Issue 19, 13: a figure that nothing fills is no column."""
    for data in (loop_report(), with_altitudes(loop_report())):
        shown_columns = columns(render(data), label)
        assert not [name for name, cells in shown_columns.items() if set(cells) <= {"—", ""}]


def test_residuals_of_the_models_are_named_horizontal_and_3d() -> None:
    """Issue 19, 13: the 3-D columns are there where altitudes are known, else dropped."""
    assert [name for name in columns(render(loop_report()), "Models") if "GPS" in name] == [
        "GPS horizontal, median", "GPS horizontal, max",
    ]  # fmt: skip
    data = with_altitudes(loop_report())
    shown_columns = columns(render(data), "Models")
    assert [name for name in shown_columns if "GPS" in name][2:] == [
        "GPS 3-D, median",
        "GPS 3-D, max",
    ]
    facts = facts_of(data)
    known = np.isfinite(facts.gps_residual_3d_m)
    assert known.sum() == 112
    np.testing.assert_allclose(
        facts.gps_residual_3d_m[known], np.hypot(facts.gps_residual_horizontal_m[known], 4.0)
    )


def with_altitudes(data: Any) -> Any:
    """Every image 4 m above the 30 m at which it was mapped."""
    at = data.images.column_names.index("altitude")
    heights = pa.array([34.0] * data.images.num_rows)
    images = data.images.set_column(at, data.images.schema.field(at), heights)
    tiles = [{**data.tiles[0], "gps_residual_3d_median_m": 5.0, "gps_residual_3d_max_m": 9.0}]
    return dataclasses.replace(data, images=images, tiles=[*tiles, *data.tiles[1:]])


def test_layers_count_each_image_once_by_its_state() -> None:
    counts = layers(loop_report())
    assert (counts["registered"], counts["unregistered"], counts["rejected"]) == (113, 4, 3)
    # Image 17 is mapped without GPS: it is on the map, but has no GPS mark and no line to one.
    assert counts["gps"] == counts["offsets"] == 112
    assert counts["headings"] == 120


def test_photographs_are_coloured_by_how_well_they_are_placed() -> None:
    data = loop_report(24, unregistered=0, rejected=0)
    count = data.poses.num_rows
    poses = data.poses
    for name, values in (
        ("predicted_error_m", pa.array([0.9, 0.3] + [0.05] * (count - 3) + [None], pa.float64())),
        ("doubt", pa.array(["loose"] + [None] * (count - 2) + ["torn"], pa.string())),
    ):
        poses = poses.set_column(poses.column_names.index(name), name, values)
    data = dataclasses.replace(data, poses=poses)
    counts = layers(data)
    assert (counts["fair"], counts["doubtful"], counts["registered"]) == (2, 2, count)
    assert "Must not be used <output>2</output>" in render(data)
    assert sum(model.doubtful for model in facts_of(data).models) == 2


def test_a_route_is_drawn_and_its_instructions_are_pictures_in_their_order() -> None:
    data = loop_report(24, unregistered=0, rejected=0)
    ids = data.poses["image_id"].to_pylist()[:5]
    names = dict(zip(data.images["image_id"].to_pylist(), data.images["name"].to_pylist()))  # noqa: B905
    steps = [
        RouteStep("start", 0.0, ids[0], b"jpeg"),
        RouteStep("turn <left>", 12.5, ids[3], None),
        RouteStep("arrive", 20.0, ids[4], None),
    ]
    with_route = dataclasses.replace(data, route=RouteExample(ids, 20.0, 0.05, steps))
    assert "route" not in layers(data)
    assert layers(with_route)["route"] == 4  # lines between five photographs
    page = render(with_route)
    section = page[page.index('<section id="route"') : page.index('<section id="retrieval"')]
    assert "20.00 m along" in section
    assert "turn &lt;left&gt;" in section
    places = [section.index(f">{escape(names[each])}<") for each in (ids[0], ids[3], ids[4])]
    assert places == sorted(places)
    assert section.count("data:image/jpeg") == 1
    assert '<section id="route"' not in render(data)


def test_photographs_that_are_not_registered_count_without_gps_too() -> None:
    """Issue 19, 13: a map with 87 % registered said "Not registered 0"."""
    data = loop_report(24, unregistered=3, rejected=1)
    lost = range(20, 22)  # of the three that are not registered, 20 to 22
    for name in ("latitude", "longitude"):
        at = data.images.column_names.index(name)
        values = data.images[name].to_pylist()
        cut = pa.array([None if row in lost else v for row, v in enumerate(values)], pa.float64())
        data = dataclasses.replace(
            data, images=data.images.set_column(at, data.images.schema.field(at), cut)
        )
    drawn = atlas_map(data, facts_of(data))
    [layer] = [layer for layer in drawn.layers if layer.name == "unregistered"]
    assert (layer.count, layer.drawn, layer.placeless) == (3, 1, 2)
    assert "Not registered: 2 of 3 have no GPS position." in drawn.notes
    assert re.search(r"Not registered <output>3</output>", render(data))
    [source] = [
        each["attributes"]["data_source"]["attributes"]["data"]
        for each in _renderers(drawn.item)
        if each["attributes"].get("name") == "unregistered"
    ]
    states = dict(source["entries"])["state"]
    assert states == ["not registered: left_out_by_mapper"]


def _renderers(item: Any) -> list[Any]:
    """The renderers with a name, wherever Bokeh has put them."""
    renderers = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("name") == "GlyphRenderer" and "attributes" in node:
                renderers.append(node)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(item)
    return renderers


def test_registered_images_that_gps_could_not_place_are_drawn_where_their_gps_is() -> None:
    data = loop_report(24, unregistered=0, rejected=0)
    nowhere = pa.array([None] * data.poses.num_rows, pa.float64())
    poses = data.poses
    for name in ("latitude", "longitude"):
        at = poses.column_names.index(name)
        poses = poses.set_column(at, poses.schema.field(at), nowhere)
    counts = layers(dataclasses.replace(data, poses=poses))
    assert (counts["registered"], counts["gps"]) == (0, 23)  # one has no GPS


def test_the_page_lists_what_is_not_in_the_map_with_its_reason_and_picture(page: Page) -> None:
    """Issue 19, 13: each photograph, its reason, its picture; hostile names are text."""
    text = render(loop_report())
    listed = columns(text, "Photographs not in the map")
    assert len(listed["Photograph"]) == 9
    assert sorted(set(listed["Reason"])) == ["left_out_by_mapper", "rejected"]
    assert listed["GPS"].count("none") == 2
    assert columns(text, "Reasons")["Count"] == ("5", "4")
    assert "9 of 122 photographs have no pose" in text
    pictured = [v for tag, key, v in page.attributes if (tag, key) == ("img", "alt")]
    assert "drive/IMG_0119.jpg" in pictured


def test_a_long_list_is_cut_fairly_by_reason() -> None:
    """Issue 19, 13: capped, with the total; a rare reason is not crowded out."""
    rows = [
        {"image_id": f"{n:05d}", "uri": "u", "name": f"{n:05d}.jpg", "stage": "pair",
         "reason": "no_pair" if n else "duplicate", "detail": ""}
        for n in range(1000)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=tables.UNREGISTERED)
    some = shown(table, 200)
    assert some.num_rows == 200
    assert some["reason"].to_pylist().count("duplicate") == 1
    assert some["name"].to_pylist()[1] == "00001.jpg"
    assert "200 of the 1,000 photographs" in render(
        dataclasses.replace(loop_report(), unregistered=table)
    )


def test_exact_duplicates_are_neither_missed_nor_drawn() -> None:
    data = loop_report(20, unregistered=2, rejected=0)
    ids = data.images["image_id"].to_pylist()
    at = data.images.column_names.index("duplicate_of")
    copies = pa.array([None] * 19 + [ids[0]], pa.string())
    data = dataclasses.replace(data, images=data.images.set_column(at, "duplicate_of", copies))
    assert facts_of(data).registered_share == pytest.approx(18 / 19)
    assert layers(data)["unregistered"] == 1


def test_the_antimeridian_does_not_tear_the_map() -> None:
    data = loop_report(centre=(-16.8, 180.0))
    longitude = data.images["longitude"].drop_null().to_numpy()
    assert longitude.min() < -179
    assert longitude.max() > 179
    _, width = _extent(data)
    assert 100 < width < 200  # 120 m and the noise of GPS


def test_without_gps_the_models_own_coordinates_are_drawn() -> None:
    data = loop_report(gps=False)
    drawn = atlas_map(data, facts_of(data))
    assert "No image has a GPS position" in drawn.caption
    assert layers(data)["registered"] == 113
    assert layers(data)["pairs"] > 0
    nowhere = dataclasses.replace(data, model_positions=None)
    assert atlas_map(nowhere, facts_of(nowhere)).item is None


@pytest.mark.parametrize(("count", "limit"), [(5, 10), (10, 10), (11, 10), (1000, 7)])
def test_thinned_rows_are_spread_evenly(count: int, limit: int) -> None:
    rows = thinned(count, limit)
    assert len(rows) == min(count, limit)
    assert rows[0] == 0
    steps = np.diff(rows)
    assert steps.min() >= 1
    assert steps.max() - steps.min() <= 1


def test_what_is_thinned_is_said_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atlas_map_module, "MAX_LINES", 100)
    monkeypatch.setattr(atlas_map_module, "MAX_MARKS", 50)
    text = " ".join(Page(render(loop_report())).words)
    assert "Verified pairs: 100 of" in text
    assert "Registered: 50 of 113 are drawn" in text


def test_a_whole_city_is_a_page_of_bounded_size() -> None:
    """100,000 images and 600,000 pairs: seconds, and a page that a browser can hold."""
    data = loop_report(100_000, unregistered=5_000, rejected=1_000)
    page = render(dataclasses.replace(data, retrievals=()))
    assert len(page) < 60e6
    assert "Verified pairs: 20,000 of" in page


def test_an_empty_atlas_has_a_page() -> None:
    whole = loop_report(4, unregistered=0, rejected=0)
    empty = {
        name: getattr(whole, name).slice(0, 0)
        for name in ("images", "rejects", "pairs", "two_views", "poses")
    }
    page = Page(
        render(
            dataclasses.replace(
                whole, **empty, tiles=(), merges=(), stages=(), index=None, retrievals=()
            )
        )
    )
    assert "No photograph was rejected." in page.words
    assert "There is no map: no image has a position." in " ".join(page.words)


def test_the_snippets_are_python(page: Page) -> None:
    snippets = [words for words in page.words if "import " in words]
    assert len(snippets) == 9
    for snippet in snippets:
        compile(snippet, "snippet", "exec")


def test_thumbnails_are_the_bytes_that_were_given() -> None:
    data = loop_report()
    given = {m.thumbnail for r in data.retrievals for m in r.matches if m.thumbnail}
    shown = [v for tag, key, v in Page(render(data)).attributes if (tag, key) == ("img", "src")]
    assert given <= {base64.b64decode(v.removeprefix("data:image/jpeg;base64,")) for v in shown}


def _extent(data: Any) -> tuple[float, float]:
    """Height and width in metres of what is drawn of GPS and mapped positions."""
    places = places_of(data, facts_of(data))
    return tuple(float(np.nanmax(v) - np.nanmin(v)) for v in places.best[::-1])  # type: ignore
