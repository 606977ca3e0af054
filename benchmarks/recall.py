"""Recall of a descriptor model on real pairs of photographs.

`python -m benchmarks.recall --photos DIR [--model netvlad-lite] [--set sped --set gardens-point]`

A set is a folder with `database/` and `queries/` whose files are named alike where they show the
same place. Vocabulary and reduction are learnt from the database's images alone. A query is right
at rank k where one of its k best lies within the set's tolerance in file order: 0 for sped (an
unordered collection of places), 2 for gardens-point (frames along a path). No query is left out.

k-means finds another vocabulary from every seed, which moves recall@1 by a point or two: the table
shows the mean over `--seeds` of them, and recall@1 of each.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vladmap.models import MODEL_NAMES, DescriptorModel, learning, load_model
from vladmap.models.checkpoints import vocabulary
from vladmap.models.kinds import DEFAULT_DIMENSION
from vladmap.schemas.rejects import UserError

RANKS = (1, 5, 10)
TOLERANCES = {"sped": 0, "gardens-point": 2}
LOCAL_DESCRIPTORS_PER_IMAGE = 200


def recall_at(
    queries: NDArray[np.float32], database: NDArray[np.float32], tolerance: int
) -> dict[int, float]:
    """Share of (Q, D) queries, in %, with database row i +- tolerance among their k best."""
    order = np.argsort(-(queries @ database.T), axis=1, kind="stable")
    right = np.abs(order - np.arange(len(queries))[:, None]) <= tolerance
    return {k: 100.0 * float(right[:, :k].any(axis=1).mean()) for k in RANKS}


def measure(
    folder: Path,
    name: str,
    model: str,
    checkpoint: str | None,
    precision: str,
    seeds: int,
    dimension: int | None = None,
) -> str:
    """One line of the table for the set `name` in `folder`."""
    database, queries = (_images(folder / name / part) for part in ("database", "queries"))
    dimension = DEFAULT_DIMENSION[model] if dimension is None else dimension
    recalls = []
    seconds = 0.0
    for seed in range(seeds):
        descriptor = _learnt(model, checkpoint, precision, database, seed, dimension)
        started = time.perf_counter()
        rows = descriptor.describe(database + queries)
        seconds += time.perf_counter() - started
        recalls.append(recall_at(rows[len(database) :], rows[: len(database)], TOLERANCES[name]))
    means = "  ".join(f"{np.mean([recall[k] for recall in recalls]):5.1f}" for k in RANKS)
    firsts = " ".join(f"{recall[RANKS[0]]:.1f}" for recall in recalls)
    rate = seeds * (len(database) + len(queries)) / seconds
    return f"{name:14s} {len(queries):4d} queries  {means}   [{firsts}]  {rate:6.1f} images/s"


def _learnt(
    model: str,
    checkpoint: str | None,
    precision: str,
    images: list[NDArray[np.uint8]],
    seed: int,
    dimension: int,
) -> DescriptorModel:
    sampled = learning.sample_local_descriptors(
        model, checkpoint, images, LOCAL_DESCRIPTORS_PER_IMAGE, seed
    )
    learnt = learning.fit(model, checkpoint, sampled, seed=seed)
    measured = load_model(model, vocabulary.to_bytes(learnt), precision=precision)
    if dimension:
        learnt = vocabulary.reduce(learnt, measured.describe(images), dimension)
        measured = load_model(model, vocabulary.to_bytes(learnt), precision=precision)
    return measured


def _images(folder: Path) -> list[NDArray[np.uint8]]:
    paths = sorted(folder.glob("*.jpg"))
    if not paths:
        raise UserError(f"no photographs in {folder}")
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recall", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="the folder of the sets")
    parser.add_argument("--model", choices=MODEL_NAMES, default="netvlad-lite")
    parser.add_argument("--checkpoint", help="VGG16 for the model netvlad")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--seeds", type=int, default=8, help="how many vocabularies")
    parser.add_argument("--dimension", type=int, help="to reduce to; 0: whole descriptors")
    parser.add_argument("--set", action="append", choices=sorted(TOLERANCES), dest="sets")
    options = parser.parse_args(arguments)
    print(f"{options.model}, {options.precision}: recall@{'/'.join(map(str, RANKS))} in %")
    try:
        for name in options.sets or TOLERANCES:
            print(
                measure(
                    options.photos,
                    name,
                    options.model,
                    options.checkpoint,
                    options.precision,
                    options.seeds,
                    options.dimension,
                ),
                flush=True,
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
