"""Made-up drives as descriptors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def descriptors(count: int, seed: int, dimension: int = 24) -> NDArray[np.float32]:
    """Unit vectors, each with something of the one before it."""
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    rows[1:] += 0.7 * rows[:-1]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def seen_again(
    rows: NDArray[np.float32], noise: float, seed: int, changed: float = 0.0
) -> NDArray[np.float32]:
    """The same places with noise, and something in common that the others have not."""
    rng = np.random.default_rng(seed)
    other = rows + noise * rng.normal(size=rows.shape) / np.sqrt(rows.shape[1])
    other += changed * rng.normal(size=rows.shape[1]) / np.sqrt(rows.shape[1])
    return (other / np.linalg.norm(other, axis=1, keepdims=True)).astype(np.float32)
