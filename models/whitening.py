"""PCA-whitening of descriptors: y = W (x - mean), then unit length.

Jegou & Chum, "Negative evidences and co-occurences in image retrieval" (ECCV 2012).

The fit does not hold all descriptors in memory. It makes several passes over parts of them, and
each pass keeps only sums, which are as large as the whitening. The passes are those of the
randomised subspace iteration of Halko, Martinsson & Tropp, "Finding structure with randomness"
(SIAM Review 53(2), 2011), algorithm 4.4: each multiplies a basis by the covariance.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vladmap.schemas.rejects import UserError

IMAGES_PER_DIMENSION = 10
PASSES = 4

# The largest length of descriptors whose whole covariance matrix is computed.
_EXACT = 2048

# The unit of fixed-point sums: sums of a hundred million unit vectors fit into 64 bits.
_UNIT = 2.0**-36

_NIL = 1e-10

LEAST_REDUCED = 100
"""Images below which `fit_reduction` leaves descriptors as long as they are."""

IMAGES_PER_REDUCED = 2
"""Images in the sample for each dimension of a reduction; with fewer, it has fewer dimensions."""

_LEAST_SHARE = 1e-6  # axes with less than this share of the largest variance are dropped


@dataclass(frozen=True)
class Whitening:
    """`weight` (d, D) and `bias` (d), float32: y = weight x + bias before normalisation."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Sums:
    """The sums of one pass over `count` descriptors x: of x (D) and of x (x . basis) (D, l).

    They are fixed-point numbers, integer multiples of `_UNIT`, so that they do not depend on the
    order in which the parts of a collection are added.
    """

    count: int
    total: NDArray[np.int64]
    products: NDArray[np.int64]

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.count + other.count, self.total + other.total, self.products + other.products
        )


def first_basis(full: int, dimension: int, seed: int = 0) -> NDArray[np.float64]:
    """The (D, l) initial basis: all axes for short descriptors, else random directions.

    There are more random directions than `dimension` (oversampling), for accuracy.
    """
    if full <= _EXACT:
        return np.eye(full)
    wide = min(full, dimension + max(32, dimension // 8))
    basis = np.random.default_rng(seed).standard_normal((full, wide))
    return basis / np.linalg.norm(basis, axis=0)


def add_up(descriptors: NDArray[np.float32], basis: NDArray[np.float64]) -> Sums:
    """The sums of (n, D) descriptors of about unit norm."""
    x = descriptors.astype(np.float64)
    return Sums(len(x), _fixed(x.sum(axis=0)), _fixed(x.T @ (x @ basis)))


def next_basis(sums: Sums, basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """The (D, l) orthonormal basis after one more iteration towards the leading eigenvectors."""
    return np.linalg.qr(_covariance_times(sums, basis))[0]


def whitening_from(
    sums: Sums, basis: NDArray[np.float64], dimension: int, of: str = "images"
) -> Whitening:
    """PCA-whitening to `dimension` numbers from the sums of the last pass.

    The projected numbers are uncorrelated and of unit variance with any basis. A basis of all axes
    gives exact PCA, a random one approximates it.

    `of` names what the descriptors are of, for errors. Raises UserError for fewer than ten times
    `dimension` descriptors: whitening divides by the small eigenvalues, which few images determine
    poorly (measured with 250 images: recall@1 fell from 98 to 15 %); and where the descriptors span
    fewer dimensions than asked for.
    """
    if sums.count < IMAGES_PER_DIMENSION * dimension:
        raise UserError(
            f"PCA-whitening to {dimension} dimensions needs at least "
            f"{IMAGES_PER_DIMENSION * dimension} {of}, there are {sums.count}: "
            "ask for fewer dimensions or leave it out"
        )
    if dimension > len(sums.total):
        raise UserError(f"cannot whiten descriptors of {len(sums.total)} dimensions to {dimension}")
    covariance = basis.T @ _covariance_times(sums, basis)
    eigenvalues, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    eigenvalues, vectors = eigenvalues[::-1][:dimension], vectors[:, ::-1][:, :dimension]
    if eigenvalues[-1] <= eigenvalues[0] * _NIL:
        raise UserError(f"the descriptors span fewer than the {dimension} dimensions asked for")
    weight = _with_signs((basis @ vectors).T) / np.sqrt(eigenvalues)[:, None]
    mean = sums.total * _UNIT / sums.count
    return Whitening(weight.astype(np.float32), (-weight @ mean).astype(np.float32))


def fit_whitening(
    descriptors: NDArray[np.float32], dimension: int, of: str = "images", seed: int = 0
) -> Whitening:
    """PCA-whitening of (n, D) descriptors in memory, by the same passes over one part.

    Raises UserError as `whitening_from` does.
    """
    return fit_whitening_of_parts([descriptors], dimension, of, seed)


def fit_whitening_of_parts(
    parts: Sequence[NDArray[np.float32]], dimension: int, of: str = "images", seed: int = 0
) -> Whitening:
    """PCA-whitening of descriptors in one or more parts (n, D), whose order does not matter.

    The result equals that of `transforms.whitening` with the same parts to the last bit. Raises
    UserError as `whitening_from` does.
    """
    basis = first_basis(parts[0].shape[1], dimension, seed)
    for _ in range(PASSES - 1):
        basis = next_basis(_add_up_parts(parts, basis), basis)
    return whitening_from(_add_up_parts(parts, basis), basis, dimension, of)


def _add_up_parts(parts: Sequence[NDArray[np.float32]], basis: NDArray[np.float64]) -> Sums:
    return functools.reduce(operator.add, (add_up(part, basis) for part in parts))


def fit_reduction(descriptors: NDArray[np.float32], dimension: int) -> Whitening | None:
    """PCA of (n, D) descriptors to at most `dimension` numbers, whitened by half.

    Each axis is divided by the fourth root of its variance, where whitening divides by the square
    root. Frequent structure counts less, while the small variances, which few images determine
    poorly, are not amplified as much; so the reduction works with few images, and has at most one
    dimension fewer than there are images. Recall@1 with 128 words of a backbone distilled with all
    lights alike, for whole, half-whitened and whitened descriptors: on 303 places in another season
    or hour 78, 81 and 83 %; on a walk of 200 frames, where neighbours show one place, 94, 92 and
    91 %; in rendered cities in snow 74, 72 and 62 %.

    None below `LEAST_REDUCED` images. Equal rows in the same order give equal numbers.
    """
    count, full = descriptors.shape
    if count < LEAST_REDUCED:
        return None
    x = descriptors.astype(np.float64)
    mean = x.mean(axis=0)
    x -= mean
    # The smaller of x x^T and x^T x: both have the same eigenvalues other than 0.
    by_image = count <= full
    eigenvalues, vectors = np.linalg.eigh(x @ x.T if by_image else x.T @ x)
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    length = min(dimension, int((eigenvalues > eigenvalues[0] * _LEAST_SHARE).sum()))
    if eigenvalues[0] <= count * _NIL:
        return None
    eigenvalues, vectors = eigenvalues[:length], vectors[:, :length]
    axes = ((x.T @ vectors) / np.sqrt(eigenvalues) if by_image else vectors).T
    weight = _with_signs(axes) * (eigenvalues[0] / eigenvalues)[:, None] ** 0.25
    return Whitening(weight.astype(np.float32), (-weight @ mean).astype(np.float32))


def _with_signs(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The axes with fixed signs: an eigenvector's own is arbitrary, and equal data must give equal
    results."""
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    signed: NDArray[np.float64] = axes * np.sign(largest)
    return signed


def _covariance_times(sums: Sums, basis: NDArray[np.float64]) -> NDArray[np.float64]:
    total = sums.total * _UNIT
    products = sums.products * _UNIT - np.outer(total, total @ basis) / sums.count
    return products / max(1, sums.count - 1)


def _fixed(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(values / _UNIT).astype(np.int64)


def whitened(descriptors: NDArray[np.float32], whitening: Whitening) -> NDArray[np.float32]:
    """(N, D) descriptors -> (N, d) of unit norm; zero rows (no local features) stay zero."""
    rows = descriptors @ whitening.weight.T + whitening.bias
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    rows[~np.asarray(descriptors.any(axis=1))] = 0
    return rows


class WhiteningLayer(nn.Module):
    """(N, D) -> (N, d) of unit norm: the last layer of published checkpoints with a PCA."""

    weight: Tensor
    bias: Tensor

    def __init__(self, whitening: Whitening) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(whitening.weight))
        self.register_buffer("bias", torch.from_numpy(whitening.bias))

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(functional.linear(x, self.weight, self.bias), dim=1)


def whitening_arrays(
    whitening: Whitening | None, name: str = "whitening"
) -> dict[str, NDArray[np.float32]]:
    """The arrays by the names that files and fingerprints use; empty without a whitening."""
    if whitening is None:
        return {}
    return {f"{name}.weight": whitening.weight, f"{name}.bias": whitening.bias}
