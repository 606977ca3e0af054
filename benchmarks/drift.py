"""What drives drift by odometry alone, and what is left after their loops, against the truth.

    python -m benchmarks.drift ATLAS TRUTH

ATLAS holds a rendered city (`vladmap sample --network --gps none`) up to `vladmap reconstruct`,
TRUTH is its truth.parquet. Of each drive it prints the length of its longest piece, and how far the
last photograph is from the truth where odometry alone and the pose graph put it: with the truth at
the first photograph's pose, at the scale of the whole way. Then the loops: how many are true, by
the share of their inliers near the true epipolar lines, of those that are kept and of the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.judging import FALSE_SHARE, TRUE_SHARE, true_shares
from vladmap.atlas import layout
from vladmap.atlas.atlas import Atlas
from vladmap.mapping.arrays import Array
from vladmap.mapping.check import best_similarity, rotations


def end_error_m(place: Array, turn: Array, truth: Array, true_turn: Array) -> float:
    """How far the last of n positions (n, 3) is from the truth, in metres.

    `turn` and `true_turn` (3, 3) are the rotations camera_from_frame of the first camera: its pose
    is that of the truth. The scale is that at which the ways are equally long.
    """
    length = np.linalg.norm(np.diff(place, axis=0), axis=1).sum()
    true_length = np.linalg.norm(np.diff(truth, axis=0), axis=1).sum()
    carried = true_turn.T @ turn @ (place[-1] - place[0]) * (true_length / length)
    return float(np.linalg.norm(carried - (truth[-1] - truth[0])))


def report_drives(atlas: Path, truth: Path) -> None:
    """Print a line a drive, and one for the whole of it after the best similarity."""
    images = Atlas(atlas).images(["image_id", "sequence_id", "sequence_index"])
    poses = pq.read_table(atlas / layout.GRAPH_POSES).to_pandas()
    true = pq.read_table(truth).to_pandas().set_index("image_id")
    held = images.merge(poses, on="image_id").dropna(subset=["piece"])
    print("drive             photographs  length m  end off: odometry  %      pose graph  %")
    for name, drive in held.groupby("sequence_id"):
        piece = drive["piece"].mode()[0]
        mine = drive[drive["piece"] == piece].sort_values("sequence_index")
        there = true.loc[mine["image_id"], ["east", "north", "up"]].to_numpy()
        quaternion = ["qw", "qx", "qy", "qz"]
        first = rotations(mine[quaternion].to_numpy()[:1])[0]
        true_first = rotations(true.loc[mine["image_id"][:1], quaternion].to_numpy())[0]
        way = np.linalg.norm(np.diff(there, axis=0), axis=1).sum()
        columns = (["odometry_x", "odometry_y", "odometry_z"], ["x", "y", "z"])
        ends, whole = [], []
        for place in (mine[names].to_numpy() for names in columns):
            ends.append(end_error_m(place, first, there, true_first))
            scale, turn, shift = best_similarity(place, there)
            off = np.linalg.norm(scale * place @ turn.T + shift - there, axis=1)
            whole += [np.median(off), off.max()]
        print(
            f"{str(name)[:16]:16s} {len(mine):12d} {way:9.1f} {ends[0]:18.2f} "
            f"{100 * ends[0] / way:5.2f} {ends[1]:11.2f} {100 * ends[1] / way:5.2f}"
        )
        print(
            f"  after the best similarity: odometry {whole[0]:.2f} m at the median, {whole[1]:.2f} "
            f"at most; pose graph {whole[2]:.2f}, {whole[3]:.2f}"
        )


def report_loops(atlas: Path, truth: Path) -> None:
    """Print how many of the loops kept and rejected are true."""
    loops = Atlas(atlas).loops()
    pairs = list(zip(loops["image_id_a"], loops["image_id_b"], strict=True))
    share, _, _ = true_shares(Atlas(atlas), truth, pairs)
    for word, mine in (("kept", loops["kept"]), ("rejected", ~loops["kept"])):
        of = share[mine.to_numpy(bool)]
        print(
            f"loops {word}: {len(of)}, {(of > TRUE_SHARE).sum()} true, "
            f"{(of < FALSE_SHARE).sum()} false"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("atlas", type=Path)
    parser.add_argument("truth", type=Path)
    options = parser.parse_args()
    report_drives(options.atlas, options.truth)
    report_loops(options.atlas, options.truth)


if __name__ == "__main__":
    main()
