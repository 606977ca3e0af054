from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vladmap.photos.holdout import hold_out
from vladmap.photos.places import Places
from vladmap.schemas.rejects import UserError


def along(metres: np.ndarray) -> Places:
    count = len(metres)
    positions = metres[:, None] * np.array([0.6, 0.8, 0.0]) + np.array([4e6, 1e6, 4.8e6])
    return Places((Path("a.jpg"),) * count, positions, ("",) * count, np.full(count, np.nan))


@pytest.mark.parametrize("length", [600.0, 20_000.0])
def test_places_are_held_out_with_their_neighbours(length: float) -> None:
    database, queries = along(np.linspace(0, length, 400)), along(np.linspace(3, length - 3, 200))
    of_database, of_queries = hold_out(database, queries, 0.2, seed=1)
    assert 0.2 <= of_queries.mean() < 0.45
    # Of a query and the image of the database next to it, both are held out or neither is, but
    # where an area ends.
    nearest = np.abs(queries.positions[:, None, 0] - database.positions[None, :, 0]).argmin(axis=1)
    assert (of_database[nearest] == of_queries).mean() > 0.85
    again = hold_out(database, queries, 0.2, seed=1)
    assert np.array_equal(of_database, again[0])
    assert not np.array_equal(of_queries, hold_out(database, queries, 0.2, seed=2)[1])


def test_one_spot_cannot_be_split() -> None:
    with pytest.raises(UserError, match="too few to hold some out"):
        hold_out(along(np.linspace(0, 20, 30)), along(np.linspace(0, 20, 30)))
