"""Local features and matchers by name. The module of a network is imported on its first use."""

from __future__ import annotations

import importlib

from vladmap.features.base import FeatureKind, LocalFeatureExtractor, Matcher
from vladmap.features.names import FEATURE_NAMES, MATCHER_NAMES, NEAREST, misfit
from vladmap.schemas.rejects import UserError
from vladmap.weights.devices import CPU

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
"""Modules of matchers other than nearest neighbours; `matcher(features, device)` makes one."""


def feature_kind(name: str) -> FeatureKind:
    """The kind of local features called `name`.

    Raises ValueError for an unknown name.
    """
    if name not in _KINDS:
        raise ValueError(f"unknown local features {name!r}; known are {', '.join(FEATURE_NAMES)}")
    kind: FeatureKind = importlib.import_module(_KINDS[name]).KIND
    return kind


def load_extractor(
    name: str,
    max_features: int | None = None,
    max_image_size: int | None = None,
    device: str = CPU,
) -> LocalFeatureExtractor:
    """The extractor of the features called `name`.

    It keeps at most `max_features` an image, and shrinks an image whose long side exceeds
    `max_image_size` pixels to it first; None stands for the kind's own default. A network runs on
    `device`, `cpu` or `cuda`; a kind that only the CPU extracts is extracted there.

    Raises:
        ValueError: there are no features, or no device, of that name.
        UserError: the package with its network is not installed, or there is no GPU.
    """
    kind = feature_kind(name)
    settings: dict[str, int | str] = {}
    if max_features is not None:
        settings["max_features"] = max_features
    if max_image_size is not None:
        settings["max_image_size"] = max_image_size
    if (chosen := kind.device(device)) != CPU:
        settings["device"] = chosen
    return kind.extractor(**settings)


def matching_device(matcher: str, wanted: str) -> str:
    """The device of the matcher called `matcher` where the user chose `wanted`.

    Networks run there, nearest neighbours are computed on the CPU.
    """
    return CPU if matcher == NEAREST else wanted


def load_matcher(features: str, matcher: str = NEAREST, device: str = CPU) -> Matcher:
    """The matcher called `matcher` for the local features called `features`.

    A network runs on `device`, `cpu` or `cuda`.

    Raises:
        ValueError: there are no features, or no matcher, of that name.
        UserError: it does not match such features, its packages are not installed, or there is no
            such device.
    """
    kind = feature_kind(features)
    if matcher not in MATCHER_NAMES:
        raise ValueError(f"unknown matcher {matcher!r}; known are {', '.join(MATCHER_NAMES)}")
    if why := misfit(features, matcher):
        raise UserError(why)
    if matcher == NEAREST:
        return kind.nearest
    network: Matcher = importlib.import_module(_NETWORKS[matcher]).matcher(features, device)
    return network
