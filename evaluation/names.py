"""Names and numbers of the evaluation that a command line shows. It imports nothing slow."""

from __future__ import annotations

from vladmap.features.names import RERANKING_BY_FEATURES
from vladmap.retrieval.names import BY_PATCHES

RERANKING = ("none", *BY_PATCHES, *RERANKING_BY_FEATURES)
"""Ways in which `vladmap evaluate` and `vladmap compare` re-rank."""

FRAMES_SIGMA = 1.5
"""Sigma of the smoothing of frames, in tolerances. Measured: 1.25 to 2 are equally good."""

METHODS = (
    "bovw+sift",
    "bovw",
    "vlad",
    "netvlad",
    "netvlad-imagenet",
    "netvlad-lite",
    "netvlad-lite+rapid",
    "patch-netvlad+rapid",
    "supervlad",
    "ghost-dil-netvlad",
)
"""Methods that `vladmap compare` measures by default, in the order of their publication."""

BESIDE = 10.0
"""Images of one sequence that are at most this many seconds apart (or positions, if times are
missing) show the same thing, and are not ranked for each other.
"""
