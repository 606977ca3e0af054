"""What re-ranking is worth: recall@1 on real and rendered pairs, and what a pair costs.

`python -m benchmarks.rerank_recall --photos DIR [--city DIR] [--candidates 20] [--way lightglue]`

Sets are those of `benchmarks.recall`, and two drives through one sample city, the queries in the
evening (`--city DIR` keeps them; they are rendered where DIR has none). The global descriptor is
netvlad-lite with words learnt from the database; its best candidates are put into another order by

- the rapid score and the homographies of patches (sizes 2, 5, 8; PCA-whitened on the database),
  with float32 and int8 patches, alone and weighted by context;
- the inliers of a fundamental matrix over the matches of local features, alone and with the cosine.

Milliseconds are of one pair, without the description of the images.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from benchmarks.recall import LOCAL_DESCRIPTORS_PER_IMAGE, TOLERANCES
from vladmap.features.base import LocalFeatureExtractor, LocalFeatures, Matcher
from vladmap.features.names import FEATURE_NAMES, NETWORK_MATCHERS, reranking_by
from vladmap.features.registry import load_extractor, load_matcher
from vladmap.mapping.two_view import fundamental_inliers
from vladmap.models import learning, load_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.checkpoints import vocabulary
from vladmap.retrieval.kmeans import kmeans
from vladmap.retrieval.rerank import by_inliers, fuse, raw_scores
from vladmap.retrieval.stored_patches import Patches, StoredPatches, stored
from vladmap.schemas.rejects import UserError
from vladmap.simulation.sample import write_sample

Images = list[NDArray[np.uint8]]

_BY_FEATURES = (*FEATURE_NAMES, *NETWORK_MATCHERS)
_FEATURES = 1024
_FEATURE_LONG_SIDE = 480  # thumbnails are enlarged to it, photographs shrunk
_FEATURE_ERROR_PX = 3.0
_CITY_IMAGES = 120
_CITY_WITHIN_M = 10.0


def _paths(folder: Path) -> list[Path]:
    paths = sorted(folder.rglob("*.jpg"))
    if not paths:
        raise UserError(f"no photographs in {folder}")
    return paths


def _read(paths: list[Path]) -> Images:
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def _frames(folder: Path, name: str) -> tuple[Images, Images, NDArray[np.bool_]]:
    database, queries = (_read(_paths(folder / name / part)) for part in ("database", "queries"))
    apart = np.abs(np.arange(len(queries))[:, None] - np.arange(len(database))[None, :])
    return database, queries, apart <= TOLERANCES[name]


def _city(folder: Path) -> tuple[Images, Images, NDArray[np.bool_]]:
    """A drive at day and one in the evening; right within ten metres of the true place."""
    places, images = [], []
    for part, hour in (("day", 10.5), ("evening", 19.0)):
        drive = folder / part
        if not (drive / "truth.parquet").exists():
            write_sample(drive, images=_CITY_IMAGES, seed=0, time_of_day=hour)
        truth = pq.read_table(drive / "truth.parquet").sort_by("path").to_pydict()
        places.append(np.stack([truth["east"], truth["north"]], axis=1))
        images.append(_read([drive / "images" / path for path in truth["path"]]))
    database, queries = places
    apart = np.linalg.norm(queries[:, None] - database[None], axis=2)
    return images[0], images[1], apart <= _CITY_WITHIN_M


def _model(database: Images, dimension: int) -> AggregatedModel:
    drawn = learning.sample_local_descriptors(
        "netvlad-lite", None, database, LOCAL_DESCRIPTORS_PER_IMAGE, 0
    )
    learnt = learning.fit("netvlad-lite", None, drawn)
    plain = load_model("netvlad-lite", vocabulary.to_bytes(learnt))
    per_image = -(-12 * dimension // len(database))
    generator = np.random.default_rng(0)
    sample = []
    for image in database:
        rows = np.concatenate([each[0] for each in plain.describe_patches([image]).descriptors])
        sample.append(rows[generator.permutation(len(rows))[:per_image]])
    learnt = vocabulary.whiten_patches(learnt, np.concatenate(sample), dimension)
    model = load_model("netvlad-lite", vocabulary.to_bytes(learnt))
    assert isinstance(model, AggregatedModel)
    return model


def _described(model: AggregatedModel, images: Images) -> tuple[NDArray[np.float32], list[Patches]]:
    both = [model.describe_with_patches([image]) for image in images]
    return np.concatenate([rows for rows, _ in both]), [patches for _, patches in both]


def _raw(
    query: Patches | StoredPatches, candidates: list[Patches], method: str, **options: object
) -> NDArray[np.float64]:
    """Candidates of other shapes than the first are scored apart."""
    rows = [
        raw_scores(
            query, stored(one) if isinstance(query, StoredPatches) else one, method, **options
        )
        for one in candidates
    ]
    return np.concatenate(rows)


def _features(extractor: LocalFeatureExtractor, images: Images) -> list[LocalFeatures]:
    features = []
    for image in images:
        ratio = _FEATURE_LONG_SIDE / max(image.shape[:2])
        size = (round(image.shape[1] * ratio), round(image.shape[0] * ratio))
        resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
        features.append(extractor.extract(np.asarray(resized)))
    return features


def _inliers(matcher: Matcher, a: LocalFeatures, b: LocalFeatures) -> int:
    return fundamental_inliers(a, b, matcher.match(a, b), _FEATURE_ERROR_PX)


def table(
    name: str, folder: Path, city: Path, candidates: int, dimension: int, ways: Sequence[str]
) -> None:
    """Print the lines of one set; of local features those of `ways`."""
    database, queries, right = _city(city) if name == "city" else _frames(folder, name)
    model = _model(database, dimension)
    descriptors, database_patches = _described(model, database)
    asked, query_patches = _described(model, queries)
    cosines = asked @ descriptors.T
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :candidates]
    similarity = np.take_along_axis(cosines, best, axis=1)
    centroids = [
        kmeans(np.concatenate([p.descriptors[s][0][::7] for p in database_patches]), 64)
        for s in range(len(model.spec.patch_sizes))
    ]

    def line(method: str, order: Callable[[int], NDArray[np.int64]]) -> None:
        started = time.perf_counter()
        first = [best[q][order(q)[0]] for q in range(len(queries))]
        milliseconds = 1000 * (time.perf_counter() - started) / best.size
        recall = 100 * float(np.mean([right[q, row] for q, row in enumerate(first)]))
        print(f"{name:14s} {method:22s} {recall:5.1f}  {milliseconds:7.2f} ms/pair", flush=True)

    line("global", lambda q: np.zeros(1, np.int64))

    def by_patches(method: str, **options: object) -> Callable[[int], NDArray[np.int64]]:
        def order(q: int) -> NDArray[np.int64]:
            patches = [database_patches[row] for row in best[q]]
            return np.argsort(-fuse(_raw(query_patches[q], patches, method, **options)))

        return order

    def by_int8(q: int) -> NDArray[np.int64]:
        patches = [database_patches[row] for row in best[q]]
        return np.argsort(-fuse(_raw(stored(query_patches[q]), patches, "rapid")))

    line("rapid", by_patches("rapid"))
    line("rapid int8", by_int8)
    line("ransac", by_patches("ransac"))
    line("rapid, contextual", by_patches("rapid", centroids=centroids))
    for way in ways:
        detector, matcher_name = reranking_by(way, _BY_FEATURES[0])
        extractor = load_extractor(detector, _FEATURES)
        matcher = load_matcher(detector, matcher_name)
        ours, theirs = _features(extractor, queries), _features(extractor, database)
        counts = np.zeros(best.shape, np.int64)
        started = time.perf_counter()
        for q in range(len(queries)):
            counts[q] = [_inliers(matcher, ours[q], theirs[row]) for row in best[q]]
        milliseconds = 1000 * (time.perf_counter() - started) / best.size
        orders = {
            "alone": [np.argsort(-count, kind="stable") for count in counts],
            "and cosine": [
                by_inliers(counts[q], similarity[q], matcher.inliers_a_cosine)
                for q in range(len(queries))
            ],
        }
        for label, order in orders.items():
            first = [best[q][order[q][0]] for q in range(len(queries))]
            recall = 100 * float(np.mean([right[q, row] for q, row in enumerate(first)]))
            label = f"{way} {label}"
            print(f"{name:14s} {label:22s} {recall:5.1f}  {milliseconds:7.2f} ms/pair", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rerank_recall", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="the folder of the sets")
    parser.add_argument("--city", type=Path, default=Path("out/rerank-city"))
    parser.add_argument("--candidates", type=int, default=20, help="of each query (default: 20)")
    parser.add_argument("--dimension", type=int, default=512, help="of a patch (default: 512)")
    parser.add_argument(
        "--way", action="append", choices=_BY_FEATURES, help="by local features (default: all)"
    )
    parser.add_argument("--set", action="append", choices=[*sorted(TOLERANCES), "city"])
    options = parser.parse_args(arguments)
    try:
        for name in options.set or [*TOLERANCES, "city"]:
            table(
                name,
                options.photos,
                options.city,
                options.candidates,
                options.dimension,
                options.way or _BY_FEATURES,
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
