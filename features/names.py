"""Names of local features and of their matchers. It imports nothing that is slow."""

from __future__ import annotations

FEATURE_NAMES = ("sift", "xfeat")

NEAREST = "nearest"
FITTING: dict[str, tuple[str, ...]] = {
    NEAREST: FEATURE_NAMES,
    "lighterglue": ("xfeat",),
}
"""Each matcher, and the local features that it matches."""

MATCHER_NAMES = tuple(FITTING)


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
