"""k-means that gives the same bytes for the same points, whatever their order."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from vladmap.retrieval.devices import faiss_computes_on
from vladmap.retrieval.threads import single_thread
from vladmap.schemas.rejects import UserError

_ITERATIONS = 25


def kmeans(
    points: NDArray[np.float32], clusters: int, seed: int = 0, device: str = "cpu"
) -> NDArray[np.float32]:
    """(n, d) points -> (clusters, d) centres by Lloyd's algorithm.

    The points are sorted first and one thread computes, because sums of float32 depend on the
    order of their terms. Raises UserError if there are fewer points than clusters, ValueError if a
    number is not finite.
    """
    if len(points) < clusters:
        raise UserError(
            f"{clusters} clusters need at least as many local descriptors, there are "
            f"{len(points)}: use more images or fewer clusters"
        )
    if not np.isfinite(points).all():
        raise ValueError("k-means was given a number that is not finite")
    ordered = _ordered(points)
    solver = faiss.Kmeans(
        ordered.shape[1],
        clusters,
        niter=_ITERATIONS,
        seed=seed,
        # By default FAISS drops points beyond 256 a cluster and warns below 39 a cluster.
        max_points_per_centroid=len(ordered),
        min_points_per_centroid=1,
        gpu=faiss_computes_on(device),
    )
    with single_thread():
        solver.train(ordered)
    return np.ascontiguousarray(solver.centroids, dtype=np.float32)


def _ordered(points: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = np.ascontiguousarray(points, dtype=np.float32) + np.float32(0)  # -0.0 becomes 0.0
    as_bytes = rows.view(f"S{rows.shape[1] * rows.itemsize}").ravel()
    return rows[np.argsort(as_bytes, kind="stable")]
