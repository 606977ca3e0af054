"""Solving sparse symmetric systems of equations."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from vladmap.mapping.arrays import Array, Indices


def solve_symmetric(matrix: csc_matrix, right: Array | Indices) -> Array:
    """Return x (n,) or (n, k) of matrix @ x = right, of a positive definite (n, n) matrix.

    With an ordering for symmetric matrices, and pivots on the diagonal, SuperLU takes a fifth of
    the time of scipy's defaults on pose graphs, and gives the same to 1e-10.
    """
    factors = splu(
        matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    return np.asarray(factors.solve(np.ascontiguousarray(right, np.float64)))
