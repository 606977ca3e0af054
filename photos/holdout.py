"""Places set apart from training, so that a model is judged where it has never been."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vladmap.photos.places import Places
from vladmap.schemas.rejects import UserError

_SIDES_M = (500.0, 200.0, 100.0, 50.0)
_FEWEST = 10  # areas with queries, below which smaller ones are taken


def hold_out(
    database: Places, queries: Places, share: float = 0.15, seed: int = 0
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which photographs lie in areas that are held out: (N,) of the database, (Q,) of the queries.

    The areas are cubes of the earth-centred frame, as large as leaves ten of them with queries, and
    are drawn by the seed until they hold `share` of the queries. Neighbours in space stay together:
    a place that was trained on must not be asked for. Raises UserError where the photographs lie
    too close together for that.
    """
    for side in _SIDES_M:
        cubes = np.concatenate([database.positions, queries.positions]) // side
        _, labels = np.unique(cubes, axis=0, return_inverse=True)
        of_database, of_queries = np.split(labels.ravel(), [len(database)])
        areas, counts = np.unique(of_queries, return_counts=True)
        if len(areas) >= _FEWEST:
            break
    else:
        raise UserError(
            f"the queries lie in {len(areas)} areas of {side:g} m, too few to hold some out: name "
            "other photographs to validate on by --validate"
        )
    order = np.random.default_rng(seed).permutation(len(areas))
    wanted = 1 + int((np.cumsum(counts[order]) < share * len(queries)).sum())
    chosen = areas[order[:wanted]]
    return np.isin(of_database, chosen), np.isin(of_queries, chosen)
