"""Every photograph that is not in the map has one reason, the first that applies."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import shapely

from vladmap.mapping import evidence
from vladmap.mapping import reasons as why
from vladmap.mapping.two_view import MIN_INLIERS
from vladmap.mapping.unregistered import (
    IMAGE_COLUMNS,
    MapOutcome,
    pairs_per_image,
    unregistered_table,
    verified_only,
)
from vladmap.schemas import tables
from vladmap.schemas.rejects import UnregisteredReason

ENDS = pa.schema([("image_id_a", pa.string()), ("image_id_b", pa.string())])


def pairs(*names: str) -> pa.Table:
    """`ab` is the pair of images a and b."""
    return pa.Table.from_pylist([dict(zip(ENDS.names, ends, strict=True)) for ends in names], ENDS)


def images(names: str, **twins: str) -> pa.Table:
    schema = pa.schema([tables.IMAGES.field(name) for name in IMAGE_COLUMNS])
    rows = [
        {
            "image_id": name, "name": f"{name}.jpg", "uri": f"/photos/{name}.jpg",
            "duplicate_of": twins.get(name), "altitude": 7.0 if name == "c" else None,
            "latitude": None if name == "a" else 48.0, "longitude": None if name == "a" else 16.0,
        }
        for name in names
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schema)


def rejects(*rows: tuple[str, str, str]) -> pa.Table:
    """Of (image, stage, reason)."""
    records = [
        {"uri": f"/photos/{name}.jpg", "image_id": name, "stage": stage, "reason": reason,
         "detail": "because"}
        for name, stage, reason in rows
    ]  # fmt: skip
    table = pa.Table.from_pylist(records, schema=tables.REJECTS)
    return table.append_column("name", pa.array([f"{row[0]}.jpg" for row in rows], pa.string()))


def posed(names: str) -> pa.Table:
    return pa.table({"image_id": pa.array(list(names), pa.string())})


def reasons(table: pa.Table) -> dict[str, tuple[str, str, str]]:
    return {
        row["image_id"]: (row["stage"], row["reason"], row["detail"]) for row in table.to_pylist()
    }


def of(outcome: MapOutcome, names: str = "abc", **given: Any) -> dict[str, tuple[str, str, str]]:
    candidates, verified = given.get("candidates", []), given.get("verified", [])
    table = unregistered_table(
        images(names), rejects(), candidates, verified, outcome, posed(given.get("posed", ""))
    )
    return reasons(table)


def test_each_photograph_is_in_the_map_or_has_the_first_reason_that_applies() -> None:
    """Issue 19, 13: registered and unregistered together are all photographs, read or not."""
    table = unregistered_table(
        images("abcdefgh", b="h"),
        rejects(("x", "ingest", "empty_file"), ("c", "describe", "missing"), ("c", "verify", "no")),
        [pairs("df", "eh"), pairs("eg")],
        [pairs("eg"), pairs("gh", "eh")],
        MapOutcome(tiles={"all": {"unregistered": {}}}),
        posed("gh"),
    )
    assert reasons(table) == {
        "a": ("pair", "no_pair", "no photograph is a candidate for it"),
        "b": ("ingest", "duplicate", "same bytes as h.jpg"),
        "c": ("describe", "rejected", "missing: because"),
        "d": ("verify", "no_verified_pair", "none of its 1 candidates shows the same scene"),
        "e": ("reconstruct", "pairs_not_trusted", "none of its 2 verified pairs is trusted"),
        "f": ("verify", "no_verified_pair", "none of its 1 candidates shows the same scene"),
        "x": ("ingest", "rejected", "empty_file: because"),
    }
    everything = set("abcdefgh") | {"x"}
    assert set(table["image_id"].to_pylist()) == everything - {"g", "h"}
    assert table["image_id"].to_pylist() == sorted(table["image_id"].to_pylist())
    assert table["name"].to_pylist()[-1] == "x.jpg"


def test_the_table_is_geoparquet_of_its_schema_with_null_places_where_there_is_no_gps() -> None:
    table = unregistered_table(images("abc"), rejects(), [], [], MapOutcome(), posed(""))
    assert table.schema.remove_metadata().equals(tables.UNREGISTERED.remove_metadata())
    assert b"geo" in table.schema.metadata
    assert [value is None for value in table["geometry"].to_pylist()] == [True, False, False]
    places = shapely.from_wkb(table["geometry"].drop_null().to_numpy(zero_copy_only=False))
    assert shapely.get_coordinates(places, include_z=True)[1].tolist() == [16.0, 48.0, 7.0]
    empty = unregistered_table(images("ab"), rejects(), [], [], MapOutcome(), posed("ab"))
    assert empty.num_rows == 0
    assert empty.schema.field("reason").type == pa.string()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (why.NOT_PLACED, "left_out_by_mapper"),
        ("something new", "left_out_by_mapper"),
        (why.NO_PAIR, "pairs_not_trusted"),
        (evidence._reason(9, 9), "too_few_points"),
        (evidence._reason(9, 20), "too_few_points"),
        (why.ONLY_TURNS, "too_few_points"),
        (f"{why.SMALL_MODEL} 2 of the 3 images that it takes", "model_too_small"),
        (why.BY_PAIRS, "contradicted"),
        (why.BY_GPS, "contradicted"),
        (why.TORN, "contradicted"),
        (f"{why.MODEL_BY_ALL}: of 9 images 5: {why.BY_GPS}", "model_left_out"),
        (f"{why.MODEL_BY_GPS}: 5 of 9 images lie elsewhere", "model_left_out"),
    ],
)
def test_what_a_tile_says_of_an_image_is_its_detail(words: str, reason: str) -> None:
    """Issue 19, 13: the mapper's reasons reach the table."""
    by_image = of(MapOutcome(tiles={"t": {"failure": None, "unregistered": {"b": words}}}))
    assert by_image["b"] == ("reconstruct", reason, words)


def test_every_sentence_has_a_reason() -> None:
    sentences = [words for name, words in vars(why).items() if name.isupper() and name[0] != "_"]
    assert len(sentences) > 9
    assert all(why.reason_of(words) for words in sentences)


def test_a_panorama_has_a_reason_of_its_own() -> None:
    """Issue 19, 13 and 3: rejected from mapping, and told apart from what is broken."""
    table = unregistered_table(
        images("a"), rejects(("a", "verify", "panorama")), [], [], MapOutcome(), posed("")
    )
    assert reasons(table)["a"] == ("verify", "panorama", "because")


def test_a_failed_tile_is_the_reason_of_its_images() -> None:
    """Issue 19, 13: tile failed, and why."""
    failed = "mapping failed: still running after 9 s"
    report = {
        "failure": failed,
        "unregistered": {"a": failed, "b": why.NOT_PLACED, "c": why.NO_PARALLAX},
    }
    by_image = of(MapOutcome(tiles={"t0": report}))
    for image in "ab":
        assert by_image[image] == ("reconstruct", "tile_failed", f"t0: {failed}")
    assert by_image["c"][1] == "too_few_points"


def test_of_two_tiles_the_one_where_an_image_came_further_gives_the_reason() -> None:
    few, none = f"{why.FEW_POINTS}: 3 points", why.NOT_PLACED
    for order in ((few, none), (none, few)):
        tiles = {f"t{n}": {"unregistered": {"a": words}} for n, words in enumerate(order)}
        assert of(MapOutcome(tiles=tiles))["a"][1] == "too_few_points"


def test_what_merging_leaves_out_is_the_merges_doing() -> None:
    outcome = MapOutcome(
        tiles={"t": {"unregistered": {"c": why.NOT_PLACED}}},
        in_models={"a": "t/0", "b": "t/1", "c": "u/0"},
        merge={"a": "too little evidence: 3 points"},
    )
    by_image = of(outcome)
    assert by_image["a"] == ("merge", "too_few_points", "too little evidence: 3 points")
    assert by_image["b"] == ("merge", "model_left_out", "the map has no place for model t/1")
    assert by_image["c"][1] == "model_left_out", "one tile mapped it"


def test_pairs_are_counted_at_both_ends_and_strangers_are_passed_over() -> None:
    ids = pa.array(["a", "b", "c"])
    counts = pairs_per_image(ids, [pairs("ab", "bc"), pairs("bx", "xy"), pairs()])
    assert counts.tolist() == [1, 3, 1]


def test_a_pair_is_verified_by_its_configuration_and_its_inliers() -> None:
    kind = tables.TWO_VIEWS.field("inliers").type
    enough, few = [[0, 0]] * MIN_INLIERS, [[0, 0]] * (MIN_INLIERS - 1)
    table = pa.table(
        {
            "configuration": ["CALIBRATED", "PLANAR", "DEGENERATE", "UNCALIBRATED"],
            "inliers": pa.array([enough, few, enough, enough], kind),
        }
    )  # fmt: skip
    assert verified_only(table)["configuration"].to_pylist() == ["CALIBRATED", "UNCALIBRATED"]


def test_every_reason_has_words_for_people() -> None:
    from vladmap.reporting.missing import missing_figures

    table = pa.table(
        {
            "reason": [reason.value for reason in UnregisteredReason],
            "stage": ["merge"] * len(UnregisteredReason),
        }
    )
    assert all(figure.means for figure in missing_figures(table))
