"""Local features and their matchers: images and pairs a second."""

from __future__ import annotations

import numpy as np

from benchmarks.gpu.describing import Bench
from benchmarks.gpu.inputs import pictures
from benchmarks.gpu.table import rate
from vladmap.features.base import LocalFeatures
from vladmap.features.registry import load_extractor, load_matcher
from vladmap.transforms.feature_batches import TOGETHER


def features(bench: Bench) -> None:
    """XFeat and ALIKED, and what matches them."""
    for name, matcher in (("xfeat", "lighterglue"), ("aliked", "lightglue")):
        _kind(bench, name, matcher)


def _kind(bench: Bench, name: str, matcher: str) -> None:
    images = pictures(bench.scale.features, bench.scale.size)
    width, height = bench.scale.size
    extractor = load_extractor(name, max_features=1024, device=bench.device.type)
    found = [extractor.extract(image) for image in images[:2]]

    def one_by_one() -> None:
        for image in images:
            extractor.extract(image)

    def together() -> None:
        for start in range(0, len(images), TOGETHER):
            extractor.extract_batch(images[start : start + TOGETHER])

    beside = f"{width} x {height}, {len(found[0])} features"
    for way, work in (("one by one", one_by_one), (f"batches of {TOGETHER}", together)):
        bench.table.rate(f"{name}, {way}", rate(work, len(images), bench.device, 1), beside)
    match = load_matcher(name, matcher, bench.device.type)
    a, b = (_most(each, 1024) for each in found)
    rounds = 20 if bench.on_gpu else 2
    bench.table.rate(
        matcher,
        rate(lambda: match.match(a, b), 1, bench.device, rounds),
        f"{len(a)} and {len(b)} features",
        "pairs/s",
    )


def _most(features: LocalFeatures, count: int) -> LocalFeatures:
    return features.rows(np.arange(min(len(features), count)))
