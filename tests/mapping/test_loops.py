"""The tables of loops and drives say what pairs and odometry say."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest

from vladmap.mapping.judged_pairs import JudgedPairs
from vladmap.mapping.judging import CONTRADICTED, DEPTH, KEPT, Judgement, judge_by_loops
from vladmap.mapping.loops import drives_table, loops_table
from vladmap.mapping.photographs import Pairs
from vladmap.mapping.view_graph.graph_tables import GRAPH_POSES, LOOP_FITS
from vladmap.schemas.loop_tables import DRIVES, LOOPS

IDS = list("abcdef")
DRIVE = [0, 0, 0, 1, 1, -1]
PLACE = [0, 1, 20, 0, 1, 0]
ENDS = ([0, 0, 0, 1, 3], [1, 2, 3, 5, 4])  # neighbours, far in one, two drives, of none, neighbours
START = datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)


def judged(verdicts: list[int]) -> JudgedPairs:
    first, second = map(np.array, ENDS)
    count, nowhere, none = len(first), np.full(6, np.nan), np.zeros((6, 3))
    pairs = Pairs(first, second, np.full(count, 40.0), np.tile([1.0, 0, 0, 0], (count, 1)))
    far = np.full(count, 9.0)
    judgement = Judgement(np.array(verdicts, np.int8), far, far, none, none)
    names, shard = np.array(IDS, object), np.full(6, "s", object)
    return JudgedPairs(
        names, nowhere, nowhere, shard, shard, np.array(DRIVE), np.array(PLACE), pairs,
        np.full(count, "s", object), judgement,
    )  # fmt: skip


def images() -> pa.Table:
    sequence = [None if drive < 0 else f"drive-{drive}" for drive in DRIVE]
    taken = [START + datetime.timedelta(seconds=2 * k) for k in range(5)] + [None]
    return pa.table(
        {
            "image_id": IDS,
            "sequence_id": sequence,
            "sequence_index": pa.array(PLACE, pa.int32()),
            "captured_at": pa.array(taken, pa.timestamp("us", tz="UTC")),
        }
    )


def graph_poses() -> pa.Table:
    """Drive 0 goes 3 m, then 60 m to the east; odometry ends 6 m north of where the graph does."""
    rows = [
        {
            "image_id": name, "component": 0, "metric": True, "support": 4, "x": x, "y": 0.0,
            "z": 0.0, "qw": 1.0, "qx": 0.0, "qy": 0.0, "qz": 0.0, "piece": 0, "travelled_m": way,
            "odometry_x": x, "odometry_y": y, "odometry_z": 0.0,
        }
        for name, x, y, way in (("a", 0.0, 0.0, 0.0), ("b", 3.0, 0.0, 3.0), ("c", 60.0, 6.0, 60.3))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=GRAPH_POSES)


def loop_fit(a: str, b: str, **given: object) -> dict[str, object]:
    usual = {"agreeing": 0, "in_largest": True, "largest": 1, "odometry_sigmas": None}
    return {"image_id_a": a, "image_id_b": b, **usual, **given}


def test_loops_are_pairs_of_two_drives_or_far_apart_in_one() -> None:
    fits = pa.Table.from_pylist([loop_fit("a", "c", agreeing=7, largest=8)], schema=LOOP_FITS)
    table = loops_table(
        judged([KEPT, KEPT, DEPTH, KEPT, KEPT]), images(), None, fits, graph_poses()
    )
    assert table.schema.equals(LOOPS, check_metadata=True)
    far, between = table.to_pylist()
    assert (far["image_id_a"], far["image_id_b"], far["kept"]) == ("a", "c", True)
    assert (far["same_drive"], far["agreeing"], far["largest"]) == (True, 7, 8)
    assert far["gap_m"] == pytest.approx(60.3)
    assert far["gap_s"] == 4.0
    assert (between["image_id_b"], between["verdict"], between["kept"]) == ("d", "depth", False)
    assert (between["gap_m"], between["gap_s"], between["agreeing"]) == (None, 6.0, None)
    assert between["distance_m"] == 9.0


def test_drift_is_the_way_from_the_end_by_odometry_to_that_of_the_graph() -> None:
    table = drives_table(images(), graph_poses())
    assert table.schema.equals(DRIVES, check_metadata=True)
    first, second = table.to_pylist()
    assert (first["sequence_id"], first["images"], first["chained"]) == ("drive-0", 3, 3)
    assert first["drift_m"] == pytest.approx(6.0)
    assert first["length_m"] == pytest.approx(60.3)
    assert first["drift_share"] == pytest.approx(6.0 / 60.3, abs=1e-3)
    # No pose graph holds the other drive.
    assert (second["images"], second["chained"], second["drift_m"]) == (2, 0, None)


def test_a_collection_of_no_drives_has_empty_tables() -> None:
    alone = images().set_column(1, "sequence_id", pa.nulls(6, pa.string()))
    assert drives_table(alone, GRAPH_POSES.empty_table()).num_rows == 0


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({}, KEPT),
        ({"in_largest": False, "agreeing": 1, "largest": 100}, CONTRADICTED),
        ({"in_largest": False, "agreeing": 60, "largest": 100}, KEPT),
        ({"odometry_sigmas": 1.0}, KEPT),
        ({"odometry_sigmas": 40.0}, CONTRADICTED),
    ],
)
def test_loops_that_many_others_or_odometry_contradict_are_not_trusted(
    given: dict[str, object], verdict: int
) -> None:
    before = judged([KEPT, KEPT, DEPTH, KEPT, KEPT])
    rows = [loop_fit("a", "c", **given), loop_fit("a", "d", odometry_sigmas=40.0)]
    loops = pa.Table.from_pylist(rows, schema=LOOP_FITS)
    after = judge_by_loops(before.judgement, before.pairs, pa.array(IDS), loops, None)
    assert after.verdict.tolist() == [KEPT, verdict, DEPTH, KEPT, KEPT]
