"""Names of local features and of their matchers. It imports nothing that is slow."""

from __future__ import annotations

FEATURE_NAMES = ("sift", "xfeat", "aliked")

NEAREST = "nearest"
FITTING: dict[str, tuple[str, ...]] = {
    NEAREST: FEATURE_NAMES,
    "lighterglue": ("xfeat",),
    "lightglue": ("aliked",),
}
"""Each matcher, and the local features that it matches."""

MATCHER_NAMES = tuple(FITTING)

NETWORK_MATCHERS = tuple(name for name in FITTING if name != NEAREST)

RERANKING_BY_FEATURES = ("features", *FEATURE_NAMES, *NETWORK_MATCHERS)
"""Ways to re-rank candidates by the matches of their local features: see `reranking_by`."""


def reranking_by(way: str, features: str) -> tuple[str, str]:
    """The local features and the matcher of a way to re-rank, one of RERANKING_BY_FEATURES.

    `features` are those that the way `features` means; the name of a matcher means them too, where
    it matches them.
    """
    if way == "features":
        return features, NEAREST
    if way in FEATURE_NAMES:
        return way, NEAREST
    return features if features in FITTING[way] else FITTING[way][0], way


def misfit(features: str, matcher: str) -> str | None:
    """Why `matcher` cannot match `features`, and what would; None where it can."""
    if features in FITTING[matcher]:
        return None
    fitting = [name for name, known in FITTING.items() if features in known]
    return (
        f"the matcher {matcher} is for the features {_listed(FITTING[matcher])}; "
        f"{features} is matched by {_listed(fitting)}"
    )


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return " or ".join(names)
