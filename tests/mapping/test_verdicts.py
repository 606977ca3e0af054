"""Verdicts stand in the rows of the pairs that they are of."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from vladmap.mapping.judged_pairs import JudgedPairs
from vladmap.mapping.judging import DEPTH, FAR, KEPT, Judgement
from vladmap.mapping.photographs import Pairs
from vladmap.mapping.two_view import TwoView, two_view_table
from vladmap.mapping.verdicts import judgements, with_judgements
from vladmap.mapping.view_graph.table import FITS
from vladmap.schemas.tables import JUDGEMENT, TWO_VIEWS


def judged(verdicts: list[int], distances: list[float]) -> JudgedPairs:
    """Pairs a-b, b-c, c-d of the images a to d, all of one shard."""
    ids = np.array(list("abcd"), object)
    nowhere, count = np.full(4, np.nan), len(verdicts)
    pairs = Pairs(np.arange(3), np.arange(3) + 1, np.full(3, 50.0), np.tile([1.0, 0, 0, 0], (3, 1)))
    limit, place = np.full(count, 20.0), np.zeros((4, 3))
    judgement = Judgement(np.array(verdicts, np.int8), np.array(distances), limit, place, place)
    none = np.full(4, -1)
    shard, of_pairs = np.full(4, "s", object), np.full(count, "s", object)
    return JudgedPairs(ids, nowhere, nowhere, shard, shard, none, none, pairs, of_pairs, judgement)


def fit(a: str, b: str, **given: float) -> dict[str, object]:
    numbers = dict.fromkeys(FITS.names[2:], 0)
    return {"image_id_a": a, "image_id_b": b, **numbers, **given}


def test_a_pair_of_the_pose_graph_has_its_probability_and_others_none() -> None:
    rows = [
        fit("c", "d", probability=0.25, distance_m=31.0, depth_compared=7, fit_share=0.5),
        fit("a", "b", probability=0.75, distance_m=2.0),
    ]
    fits = pa.Table.from_pylist(rows, schema=FITS)
    table = judgements(judged([KEPT, FAR, DEPTH], [5.0, 44.0, np.nan]), fits).to_pylist()
    assert [row["verdict"] for row in table] == ["kept", "far", "depth"]
    assert [row["probability"] for row in table] == [0.75, None, 0.25]
    assert [row["distance_m"] for row in table] == [2.0, 44.0, 31.0]
    assert [row["depth_compared"] for row in table] == [0, None, 7]


def test_without_a_pose_graph_the_distance_is_that_of_gps_and_may_be_unknown() -> None:
    table = judgements(judged([KEPT, FAR, KEPT], [5.0, 44.0, np.nan]), None)
    assert table["distance_m"].to_pylist() == [5.0, 44.0, None]
    assert table["probability"].null_count == 3


@pytest.mark.parametrize("missing", [(), JUDGEMENT])
def test_refused_pairs_between_verified_ones_have_no_verdict(missing: tuple[str, ...]) -> None:
    """Also where the shard was written before there were columns for it."""
    matches = np.stack([np.arange(40), np.arange(40)], axis=1).astype(np.uint32)
    none = np.zeros((0, 2), np.uint32)
    views = [
        TwoView("a", "b", "CALIBRATED", matches, matches),
        TwoView("a", "c", "DEGENERATE", matches, none),
        TwoView("b", "c", "CALIBRATED", matches, matches[:20]),
        TwoView("c", "d", "CALIBRATED", matches, matches[:30]),
    ]
    table = two_view_table(views)
    mine = judgements(judged([KEPT, FAR, KEPT], [1.0, 2.0, 3.0]), None)
    made = with_judgements(table.drop_columns(list(missing)), mine)
    assert made.schema.equals(TWO_VIEWS, check_metadata=True)
    assert made["verdict"].to_pylist() == ["kept", None, "far", "kept"]
    assert made["distance_m"].to_pylist() == [1.0, None, 2.0, 3.0]
    assert made["inliers"].to_pylist() == table["inliers"].to_pylist()
