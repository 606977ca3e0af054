"""Local features and matchers by name. A network is imported where it is asked for."""

from __future__ import annotations

import importlib

from vladmap.features.base import FeatureKind, LocalFeatureExtractor, Matcher
from vladmap.features.names import FEATURE_NAMES, MATCHER_NAMES, NEAREST, misfit
from vladmap.schemas.rejects import UserError

_KINDS = {
    "sift": "vladmap.features.rootsift",
    "xfeat": "vladmap.features.xfeat",
    "aliked": "vladmap.features.aliked",
}
"""Modules that define each kind, as `KIND`."""

_NETWORKS = {
    "lighterglue": "vladmap.features.lighterglue",
    "lightglue": "vladmap.features.lightglue",
}
"""Modules of matchers other than nearest neighbours; `matcher(features)` makes one."""


def feature_kind(name: str) -> FeatureKind:
    """The kind of local features called `name`.

    Raises ValueError where there is none of that name.
    """
    if name not in _KINDS:
        raise ValueError(f"unknown local features {name!r}; known are {', '.join(FEATURE_NAMES)}")
    kind: FeatureKind = importlib.import_module(_KINDS[name]).KIND
    return kind


def load_extractor(
    name: str, max_features: int | None = None, max_image_size: int | None = None
) -> LocalFeatureExtractor:
    """The extractor of the features called `name`.

    It keeps at most `max_features` an image, and shrinks an image whose long side exceeds
    `max_image_size` pixels to it first; by default what suits the kind.

    Raises:
        ValueError: there are no features of that name.
        UserError: the package that brings its network is not installed.
    """
    settings = {"max_features": max_features, "max_image_size": max_image_size}
    given = {key: value for key, value in settings.items() if value is not None}
    return feature_kind(name).extractor(**given)


def load_matcher(features: str, matcher: str = NEAREST) -> Matcher:
    """The matcher called `matcher` for the local features called `features`.

    Raises:
        ValueError: there are no features, or no matcher, of that name.
        UserError: it does not match such features, or its packages are not installed.
    """
    kind = feature_kind(features)
    if matcher not in MATCHER_NAMES:
        raise ValueError(f"unknown matcher {matcher!r}; known are {', '.join(MATCHER_NAMES)}")
    if why := misfit(features, matcher):
        raise UserError(why)
    if matcher == NEAREST:
        return kind.nearest
    network: Matcher = importlib.import_module(_NETWORKS[matcher]).matcher(features)
    return network
