"""Names and numbers of retrieval that a command line shows. It imports nothing that is slow."""

from __future__ import annotations

BY_PATCHES = ("rapid", "ransac")

KDTREE = "kdtree"
"""In place of a FAISS factory: exact search by a k-d tree."""

SIGMA_M = 6.0
"""Standard deviation, in metres, of the smoothing of descriptors along a street.

Measured: recall is the same from 4 to 8.
"""

RIGHT_M = 25.0
RIGHT_DEG = 40.0
"""A match is right if it lies within RIGHT_M metres of the query and its heading differs by at most
RIGHT_DEG degrees."""

SEQUENCE_METHODS = {
    "seqslam": "SeqSLAM's trajectories, through likelihoods that whole drives are normalised by",
    "seqslam-published": "SeqSLAM as published: trajectories through locally enhanced distances",
    "cone": "OpenSeqSLAM2's search by cone",
    "hybrid": "OpenSeqSLAM2's search by trajectories that hold a best match",
    "hmm": "a hidden Markov model of the whole drive",
    "hmm-causal": "the same, each photograph placed by those up to it alone",
    "delta": "delta descriptors: what changes along the drive",
}
"""Ways in which a drive is matched as one, with what they are."""

SEQUENCE_FRAMES = 20
"""Photographs of a window of SeqSLAM's and its kin; of delta descriptors 16."""

REACH_M, REACH_FRAMES = 25.0, 5.0
"""The longest move of the hidden Markov model from one photograph to the next."""
