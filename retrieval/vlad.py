"""VLAD: residuals of local descriptors summed by their nearest centre.

Jegou et al., "Aggregating local descriptors into a compact image representation" (CVPR 2010), with
the intra-normalisation of Arandjelovic & Zisserman, "All about VLAD" (CVPR 2013).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def vlad(
    descriptors: NDArray[np.float32],
    centres: NDArray[np.float32],
    *,
    signed_square_root: bool = False,
) -> NDArray[np.float32]:
    """(n, d) local descriptors and (K, d) centres -> (K * d) of unit L2 norm, cluster-major.

    With `signed_square_root`, sums of residuals are replaced by sign(x) sqrt(|x|) before the
    intra-normalisation. Without local descriptors, or if all residuals are zero, the result is the
    zero vector.
    """
    products = descriptors @ centres.T
    nearest = np.argmin(np.square(centres).sum(axis=1) - 2 * products, axis=1)
    members = (nearest == np.arange(len(centres))[:, None]).astype(np.float32)  # (K, n)
    residuals = members @ descriptors - members.sum(axis=1, keepdims=True) * centres
    if signed_square_root:
        residuals = np.sign(residuals) * np.sqrt(np.abs(residuals))
    return _unit(_unit(residuals).ravel())


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
