"""Names of local features and of their matchers. This module imports nothing that is slow."""

from __future__ import annotations

FEATURE_NAMES = ("sift", "xfeat", "aliked")

NEAREST = "nearest"
FITTING: dict[str, tuple[str, ...]] = {
    NEAREST: FEATURE_NAMES,
    "lighterglue": ("xfeat",),
    "lightglue": ("aliked",),
}
"""Each matcher, with the local features that it can match."""

MATCHER_NAMES = tuple(FITTING)

NETWORK_MATCHERS = tuple(name for name in FITTING if name != NEAREST)

RERANKING_BY_FEATURES = ("features", *FEATURE_NAMES, *NETWORK_MATCHERS)
"""Ways to re-rank candidates by the matches of their local features: see `reranking_by`."""


BETWEEN_DRIVES = {"xfeat": "lighterglue", "aliked": "lightglue"}
"""Local features by which pairs between drives are tried again, each with its network."""

NO_SECOND = "none"


def reranking_by(way: str, features: str) -> tuple[str, str]:
    """(local features, matcher) that `way`, one of RERANKING_BY_FEATURES, re-ranks by.

    `features` is the user's choice of local features. The way `features`, and the name of a matcher
    that can match them, use these; a matcher that cannot uses the first that it can match.
    """
    if way == "features":
        return features, NEAREST
    if way in FEATURE_NAMES:
        return way, NEAREST
    return features if features in FITTING[way] else FITTING[way][0], way


def misfit(features: str, matcher: str) -> str | None:
    """The error where `matcher` cannot match `features`, naming those that can; else None."""
    if features in FITTING[matcher]:
        return None
    fitting = [name for name, matched in FITTING.items() if features in matched]
    return (
        f"the matcher {matcher} is for the features {_listed(FITTING[matcher])}; "
        f"{features} is matched by {_listed(fitting)}"
    )


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return " or ".join(names)
