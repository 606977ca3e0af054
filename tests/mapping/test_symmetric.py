"""Sparse symmetric systems are solved as dense ones are."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_matrix

from vladmap.mapping.symmetric import solve_symmetric


def test_the_solution_is_that_of_the_dense_system() -> None:
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(40, 30)) * (rng.random((40, 30)) < 0.2)
    matrix = factor.T @ factor + 0.1 * np.eye(30)
    for right in (rng.normal(size=30), rng.normal(size=(30, 3))):
        found = solve_symmetric(csc_matrix(matrix), right)
        np.testing.assert_allclose(found, np.linalg.solve(matrix, right), atol=1e-10)
