"""How well the pose graph tells true pairs from false ones, against the truth of a rendered city.

    python -m benchmarks.judging ATLAS TRUTH [--fit] [--between-drives KIND]

ATLAS holds a rendered city (`vladmap sample`) up to `vladmap reconstruct`, TRUTH is its
truth.parquet. A verified pair is true if over 60 % of its inliers lie within 4 pixels of the true
epipolar lines, and false under 40 %, if its photographs share no surface where truth_pairs.parquet
lies beside; the others are left out. A pair that matches each house to the next one of the street
is true by that: in a second table it is false if at the true poses under 40 % of its inliers lie
where the depths by other pairs put them. Of both it prints precision where recall is 0.9, and
precision and recall at some thresholds of the probability. `--fit` prints the coefficients that
are the maximum likelihood of the second on this city: those of mapping/view_graph/fit.py are of
`--images 600 --seed 5`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.optimize import minimize

from vladmap.atlas import layout
from vladmap.atlas.atlas import Atlas
from vladmap.mapping.arrays import Array, Bools, Indices
from vladmap.mapping.camera import Camera
from vladmap.mapping.check import rotations
from vladmap.mapping.two_view import TwoView
from vladmap.mapping.view_graph.fit import PairFit, fit_pairs, logistic_features, share_within
from vladmap.mapping.view_graph.pairs import matched_pairs

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
TRUE_SHARE, FALSE_SHARE = 0.6, 0.4
_PENALTY = 3e-4


def true_shares(
    atlas: Atlas, truth: Path, fits: list[tuple[str, str]], second: str | None = None
) -> tuple[Array, Array, Indices]:
    """Of each pair (m,) at the true poses: PairFit.share, PairFit.placed, and its inliers."""
    table = pq.read_table(truth).sort_by("image_id")
    ids = table["image_id"].to_pylist()

    def columns(*names: str) -> Array:
        return np.stack([table[name].to_numpy() for name in names], axis=1)

    centre, turn = columns("east", "north", "up"), rotations(columns("qw", "qx", "qy", "qz"))
    cameras = {
        image: Camera("PINHOLE", int(size[0]), int(size[1]), tuple(lens.tolist()), True)
        for image, size, lens in zip(
            ids, columns("width", "height"), columns("fx", "fy", "cx", "cy"), strict=True
        )
    }
    frame = atlas.two_views(["image_id_a", "image_id_b", "inliers"])
    views = [
        TwoView(a, b, "CALIBRATED", np.stack(inliers), np.stack(inliers))
        for a, b, inliers in zip(*(frame[name] for name in frame.columns), strict=True)
        if len(inliers)
    ]
    kinds = [atlas.features(), *([atlas.features(second)] if second else [])]

    def keypoints(image: str) -> Array:
        return np.concatenate([each[image].keypoints[:, :2] for each in kinds if image in each])

    pairs = matched_pairs(ids, views, keypoints, cameras)
    first, second = pairs.first, pairs.second
    relative = np.einsum("mij,mkj->mik", turn[second], turn[first])
    moved = np.einsum("mij,mj->mi", turn[second], centre[first] - centre[second])
    share = share_within(pairs, relative, moved)
    placed = fit_pairs(pairs, turn, centre).placed
    row = {(ids[a], ids[b]): at for at, (a, b) in enumerate(zip(first, second, strict=True))}
    order = np.array([row[pair] for pair in fits])
    return share[order], placed[order], pairs.inliers[order]


def sharing(truth: Path, pairs: list[tuple[str, str]]) -> Bools:
    """Which pairs (m,) share surfaces, by truth_pairs.parquet beside `truth`; none without it."""
    beside = truth.with_name("truth_pairs.parquet")
    if not beside.exists():
        return np.zeros(len(pairs), bool)
    table = pq.read_table(beside, columns=["image_id_a", "image_id_b"])
    known = {frozenset(pair) for pair in zip(*(c.to_pylist() for c in table.columns), strict=True)}
    return np.array([frozenset(pair) in known for pair in pairs], bool)


def show(name: str, true: Bools, known: Bools, probability: Array) -> None:
    """Print precision and recall of the probability on the pairs that are known."""
    true, probability = true[known], probability[known]
    print(f"{name}: {true.sum()} pairs true, {(~true).sum()} false, the others left out")
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("atlas", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--fit", action="store_true", help="print the coefficients of this city")
    parser.add_argument("--between-drives", metavar="KIND", help="as the atlas was built with")
    options = parser.parse_args()
    fits = pq.read_table(options.atlas / layout.PAIR_FITS).to_pydict()
    pairs = list(zip(fits["image_id_a"], fits["image_id_b"], strict=True))
    share, placed, inliers = true_shares(
        Atlas(options.atlas), options.truth, pairs, options.between_drives
    )
    probability = np.array(fits["probability"])
    apart = (share < FALSE_SHARE) & ~sharing(options.truth, pairs)
    true = share > TRUE_SHARE
    show("by epipolar lines", true, true | apart, probability)
    house_off = true & (placed < FALSE_SHARE)
    true &= placed > TRUE_SHARE
    known = true | apart | house_off
    show("by epipolar lines and depths", true, known, probability)
    if options.fit:
        columns = ("fit_share", "depth_agreement", "depth_compared", "depth_usual", "distance_m")
        nothing = np.zeros((0, 3))
        fit = PairFit(nothing, nothing, *(np.array(fits[name]) for name in columns))
        features, true = logistic_features(fit, inliers)[:, known], true[known]

        def cost(weight: Array) -> float:
            score = weight @ features
            likelihood = np.logaddexp(0, score) - true * score
            return float(likelihood.mean() + _PENALTY * (weight[1:] ** 2).sum())

        print("coefficients", minimize(cost, np.zeros(len(features))).x.round(2).tolist())


if __name__ == "__main__":
    main()
