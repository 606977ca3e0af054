"""k-means that gives the same bytes for the same points, whatever their order."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from vladmap.retrieval.threads import single_thread
from vladmap.schemas.rejects import UserError

_ITERATIONS = 25


def kmeans(points: NDArray[np.float32], clusters: int, seed: int = 0) -> NDArray[np.float32]:
    """(n, d) points -> (clusters, d) centres that minimise squared distances, as Lloyd's steps do.

    Points are put into one order first and one thread does the work: sums of float32 depend on
    both. Raises UserError where there are fewer points than clusters, ValueError where a number is
    not finite.
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
        # the caller bounds the sample; nothing of it is dropped, few points are not warned about
        max_points_per_centroid=len(ordered),
        min_points_per_centroid=1,
    )
    with single_thread():
        solver.train(ordered)
    return np.ascontiguousarray(solver.centroids, dtype=np.float32)


def _ordered(points: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = np.ascontiguousarray(points, dtype=np.float32) + np.float32(0)  # -0.0 becomes 0.0
    as_bytes = rows.view(f"S{rows.shape[1] * rows.itemsize}").ravel()
    return rows[np.argsort(as_bytes, kind="stable")]
