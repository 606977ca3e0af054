"""PCA-whitening fitted in Beam to any number of descriptors."""

from __future__ import annotations

import functools
import operator
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue
from numpy.typing import NDArray

from vladmap.models.whitening import (
    PASSES,
    Sums,
    Whitening,
    add_up,
    first_basis,
    next_basis,
    whitening_from,
)
from vladmap.schemas.rejects import UserError
from vladmap.transforms.spread import Spread

Basis = NDArray[np.float64] | None


@dataclass(eq=False)
class FitWhitening(beam.PTransform):
    """Arrays (n, D) of descriptors -> one Whitening to `dimension` numbers.

    The descriptors are computed once and read several times (see `models.whitening`). A worker
    holds the sums of its bundle. Raises UserError if there are too few descriptors; `of` names for
    the message what they describe.
    """

    dimension: int
    seed: int
    of: str = "images"

    def expand(self, descriptors: beam.PCollection) -> beam.PCollection:
        descriptors = descriptors | "Make once" >> Spread(_checksum)
        basis: beam.pvalue.AsSideInput | None = None
        for number in range(1, PASSES):
            sums = self._pass(descriptors, basis, number)
            step = sums | f"Basis {number}" >> beam.Map(self._step, basis)
            basis = beam.pvalue.AsSingleton(step)
        return self._pass(descriptors, basis, PASSES) | "Finish" >> beam.Map(self._finish, basis)

    def _pass(
        self, descriptors: beam.PCollection, basis: beam.pvalue.AsSideInput | None, number: int
    ) -> beam.PCollection:
        add = _AddUp(self.dimension, self.seed)
        return (
            descriptors
            | f"Pass {number}" >> beam.ParDo(add, basis)
            | f"Add up {number}" >> beam.CombineGlobally(_added)
        )

    def _step(self, sums: Sums | None, basis: Basis) -> NDArray[np.float64]:
        if sums is None:
            raise UserError(f"PCA-whitening: there are no {self.of} to learn it from")
        return next_basis(sums, _basis(basis, len(sums.total), self.dimension, self.seed))

    def _finish(self, sums: Sums, basis: NDArray[np.float64]) -> Whitening:
        return whitening_from(sums, basis, self.dimension, self.of)


class _AddUp(beam.DoFn):
    """Emits one element with the sums of a bundle's descriptors."""

    def __init__(self, dimension: int, seed: int) -> None:
        self._dimension, self._seed = dimension, seed

    def start_bundle(self) -> None:
        self._sums: Sums | None = None
        self._first: Basis = None

    def process(self, descriptors: NDArray[np.float32], basis: Basis) -> None:
        if basis is None and self._first is None:
            self._first = first_basis(descriptors.shape[1], self._dimension, self._seed)
        used = self._first if basis is None else basis
        assert used is not None
        sums = add_up(descriptors, used)
        self._sums = sums if self._sums is None else self._sums + sums

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._sums is not None:
            window = GlobalWindow()
            yield WindowedValue(self._sums, window.max_timestamp(), (window,))
        self._sums = self._first = None


def _checksum(descriptors: NDArray[np.float32]) -> int:
    return zlib.crc32(np.ascontiguousarray(descriptors).data)


def _basis(basis: Basis, full: int, dimension: int, seed: int) -> NDArray[np.float64]:
    return first_basis(full, dimension, seed) if basis is None else basis


def _added(parts: Iterable[Sums]) -> Sums | None:
    # Beam also combines an empty list of parts.
    held = [part for part in parts if part is not None]
    return functools.reduce(operator.add, held) if held else None
