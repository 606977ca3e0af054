"""How well the pose graph tells true pairs from false ones, against the truth of a rendered city.

    python -m benchmarks.judging ATLAS TRUTH [--fit]

ATLAS holds a rendered city (`vladmap sample`) up to `vladmap reconstruct`, TRUTH is its
truth.parquet. A verified pair is true if over 60 % of its inliers lie within 4 pixels of the true
epipolar lines, and false under 40 %, if its photographs share no surface where truth_pairs.parquet
lies beside; the others are left out. It prints precision where recall is 0.9, and precision and
recall at some thresholds of the probability. `--fit` prints the coefficients that are the maximum
likelihood on this city: those of mapping/view_graph/fit.py are of `--images 600 --seed 5`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.optimize import minimize

from vladmap.atlas import layout
from vladmap.atlas.atlas import Atlas
from vladmap.mapping.arrays import Array, Bools
from vladmap.mapping.camera import MAX_ERROR_PX
from vladmap.mapping.check import rotations
from vladmap.mapping.rotations import cross_matrices
from vladmap.mapping.view_graph.fit import PairFit, logistic_features

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
TRUE_SHARE, FALSE_SHARE = 0.6, 0.4
_PENALTY = 3e-4


def true_shares(atlas: Atlas, truth: Path, fits: list[tuple[str, str]]) -> tuple[Array, Array]:
    """The share of each pair's inliers near the true epipolar lines, and their number, (m,)."""
    table = pq.read_table(truth)
    row = {image: number for number, image in enumerate(table["image_id"].to_pylist())}

    def columns(*names: str) -> Array:
        return np.stack([table[name].to_numpy() for name in names], axis=1)

    centre, turn = columns("east", "north", "up"), rotations(columns("qw", "qx", "qy", "qz"))
    lens = columns("fx", "fy", "cx", "cy")
    views = atlas.two_views(["image_id_a", "image_id_b", "inliers"])
    inliers = dict(
        zip(
            zip(views["image_id_a"], views["image_id_b"], strict=True),
            views["inliers"],
            strict=True,
        )
    )
    features = atlas.features()
    pixels = {image: features[image].keypoints[:, :2].astype(np.float64) for image in features}
    shares, counts = [], []
    for pair in fits:
        a, b = (row[image] for image in pair)
        matches = np.stack(inliers[pair]).astype(np.int64)
        rays = [
            np.column_stack(
                [(pixels[image][matches[:, end]] - lens[at, 2:]) / lens[at, :2],
                 np.ones(len(matches))]
            )
            for end, (image, at) in enumerate(zip(pair, (a, b), strict=True))
        ]  # fmt: skip
        moved = turn[b] @ (centre[a] - centre[b])
        essential = cross_matrices(moved[None])[0] @ turn[b] @ turn[a].T
        in_b, in_a = rays[0] @ essential.T, rays[1] @ essential
        off = np.abs((rays[1] * in_b).sum(axis=1)) * lens[a, 0]
        size = np.minimum(*(np.hypot(line[:, 0], line[:, 1]) for line in (in_a, in_b)))
        shares.append(float((off <= MAX_ERROR_PX * np.maximum(size, 1e-12)).mean()))
        counts.append(len(matches))
    return np.array(shares), np.array(counts)


def sharing(truth: Path, pairs: list[tuple[str, str]]) -> Bools:
    """Which pairs (m,) share surfaces, by truth_pairs.parquet beside `truth`; none without it."""
    beside = truth.with_name("truth_pairs.parquet")
    if not beside.exists():
        return np.zeros(len(pairs), bool)
    table = pq.read_table(beside, columns=["image_id_a", "image_id_b"])
    known = {frozenset(pair) for pair in zip(*(c.to_pylist() for c in table.columns), strict=True)}
    return np.array([frozenset(pair) in known for pair in pairs], bool)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("atlas", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--fit", action="store_true", help="print the coefficients of this city")
    options = parser.parse_args()
    fits = pq.read_table(options.atlas / layout.PAIR_FITS).to_pydict()
    pairs = list(zip(fits["image_id_a"], fits["image_id_b"], strict=True))
    share, inliers = true_shares(Atlas(options.atlas), options.truth, pairs)
    known = (share > TRUE_SHARE) | (share < FALSE_SHARE) & ~sharing(options.truth, pairs)
    true, probability = share[known] > TRUE_SHARE, np.array(fits["probability"])[known]
    print(f"{len(share)} pairs, {true.sum()} true, {(~true).sum()} false, the others left out")
    order = np.argsort(-probability, kind="stable")
    found = np.cumsum(true[order])
    at = int(np.searchsorted(found, 0.9 * true.sum()))
    precision = found[at] / (at + 1)
    print(f"at recall 0.9: precision {precision:.4f}, probability {probability[order[at]]:.3f}")
    print("probability  kept  recall  precision  false")
    for least in THRESHOLDS:
        kept = probability >= least
        print(
            f"{least:11.2f} {kept.sum():5d} {(kept & true).sum() / true.sum():7.4f} "
            f"{true[kept].mean():10.5f} {(kept & ~true).sum():6d}"
        )
    if options.fit:
        columns = ("fit_share", "depth_agreement", "depth_compared", "depth_usual", "distance_m")
        nothing = np.zeros((0, 3))
        fit = PairFit(nothing, nothing, *(np.array(fits[name]) for name in columns))
        features = logistic_features(fit, inliers)[:, known]

        def cost(weight: Array) -> float:
            score = weight @ features
            likelihood = np.logaddexp(0, score) - true * score
            return float(likelihood.mean() + _PENALTY * (weight[1:] ** 2).sum())

        print("coefficients", minimize(cost, np.zeros(len(features))).x.round(1).tolist())


if __name__ == "__main__":
    main()
