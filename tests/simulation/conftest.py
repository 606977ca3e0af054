"""One small city, built once for the whole folder, and torch on one thread for speed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from vladmap.simulation.city import City, build_city


@pytest.fixture(scope="session")
def city() -> Iterator[City]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield build_city(seed=3)
    torch.set_num_threads(threads)
