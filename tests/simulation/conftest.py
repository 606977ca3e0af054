"""One small city, built once for the whole folder, and torch on one thread for speed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from vladmap.simulation.city import City, build_city
from vladmap.simulation.network import Place


@pytest.fixture(scope="session")
def city() -> Iterator[City]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield build_city(seed=3)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def network_city() -> City:
    """Two by two blocks, some of them alike, with a square, a park and a dead end."""
    return Place(seed=2, blocks=(2, 2), repeated=0.5, terraces=0.3).build()
