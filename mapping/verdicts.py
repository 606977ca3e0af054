"""What is thought of each verified pair, in the columns of TWO_VIEWS that are for it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.judged_pairs import JudgedPairs
from vladmap.mapping.judging import VERDICTS, rows_among
from vladmap.mapping.two_view import inlier_counts
from vladmap.schemas.tables import JUDGEMENT, TWO_VIEWS

JUDGEMENTS = pa.schema([TWO_VIEWS.field(name) for name in JUDGEMENT]).remove_metadata()
"""The columns JUDGEMENT of TWO_VIEWS."""

_FROM_FITS = ("probability", "fit_share", "depth_agreement", "depth_compared", "depth_usual")


def rows_in(judged: JudgedPairs, table: pa.Table | None) -> Indices:
    """The row of each judged pair, (m,), in a table of pairs; -1 for none."""
    row = np.full(len(judged.pair_shard), -1, np.int64)
    if table is None or table.num_rows == 0:
        return row
    ids = pa.array(judged.image_ids, pa.string())
    at = rows_among(judged.pairs, ids, table)
    row[at[at >= 0]] = np.flatnonzero(at >= 0)
    return row


def judgements(judged: JudgedPairs, fits: pa.Table | None) -> pa.Table:
    """Return a table of JUDGEMENTS, a row a judged pair, in their order.

    `fits` are rows of view_graph.table.FITS: how pairs fit the pose graph. Of pairs that are not
    among them, verdict and distance are those by GPS, drives and third photographs.
    """
    row = rows_in(judged, fits)
    held = row >= 0
    distance = judged.judgement.distance.copy()
    columns: dict[str, pa.Array] = {}
    if fits is not None and fits.num_rows:
        taken = pa.array(np.where(held, row, 0), mask=~held)
        columns = {name: fits[name].combine_chunks().take(taken) for name in _FROM_FITS}
        distance[held] = fits["distance_m"].to_numpy()[row[held]]
    columns["verdict"] = np.asarray(VERDICTS, object)[judged.judgement.verdict].tolist()
    columns["distance_m"] = known_values(distance)
    empty = pa.nulls(len(row))
    arrays = [
        pa.array(column, field.type) if isinstance(column, list) else column.cast(field.type)
        for field, column in ((field, columns.get(field.name, empty)) for field in JUDGEMENTS)
    ]
    return pa.Table.from_arrays(arrays, schema=JUDGEMENTS)


def with_judgements(two_views: pa.Table, mine: pa.Table) -> pa.Table:
    """Return rows of TWO_VIEWS with the judgements of the verified ones among them, in order.

    `mine` is a table of JUDGEMENTS. The other rows have none: nothing is to be judged.
    """
    verified = inlier_counts(two_views) > 0
    place = pa.array(np.where(verified, np.cumsum(verified) - 1, 0), mask=~verified)
    geometry = [name for name in TWO_VIEWS.names if name not in JUDGEMENT]
    columns = [two_views[name] for name in geometry]
    columns += [mine[name].combine_chunks().take(place) for name in JUDGEMENT]
    return pa.Table.from_arrays(columns, schema=TWO_VIEWS)


def known_values(values: Array) -> pa.Array:
    """Return numbers (k,) to three decimals, null where they are NaN."""
    return pa.array(np.round(values, 3), pa.float64(), from_pandas=True)
