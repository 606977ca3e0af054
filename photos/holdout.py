"""Areas held out from training, so that a model is validated at places that are new to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vladmap.photos.places import Places
from vladmap.schemas.rejects import UserError

_SIDES_M = (500.0, 200.0, 100.0, 50.0)
_FEWEST = 10  # with fewer areas that have queries, smaller areas are used


def hold_out(
    database: Places, queries: Places, share: float = 0.15, seed: int = 0
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which photographs lie in areas that are held out: (N,) of the database, (Q,) of the queries.

    The areas are cubes of the earth-centred frame, of the largest size with which at least ten have
    queries. They are drawn by the seed until they hold `share` of the queries. Whole areas are held
    out, so that no validation query shows a place that was trained on. Raises UserError where the
    photographs lie too close together.
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
