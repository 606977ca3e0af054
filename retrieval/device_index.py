"""FAISS's index on a GPU by torch: which list a vector belongs to, and the best of a query.

It needs no build of FAISS for GPUs. Lists and neighbours are those that FAISS finds on the CPU up
to rounding; where FAISS looks for the nearest lists by a graph (HNSW), they are the exact ones.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vladmap.retrieval.devices import Matrix, exact_matmul
from vladmap.retrieval.faiss_index import innermost, search, visited_lists

log = logging.getLogger("vladmap")

Search = Callable[[Matrix, int, int], tuple[Matrix, NDArray[np.int64]]]
"""(Q, D) queries, k, below -> as `retrieval.faiss_index.search`."""

Encode = Callable[[Matrix], NDArray[np.uint8]]
"""(n, D) vectors -> (n, C) codes, as `retrieval.index_parts.encode`."""

_SCORES_AT_ONCE = 1 << 26
_VECTORS_AT_ONCE = 1 << 16
_SHARE_OF_MEMORY = 0.5
"""Of a GPU's free memory, what the vectors of an index may take."""


def encoder(trained: faiss.Index, device: torch.device) -> Encode | None:
    """`trained.sa_encode` with each vector's list found on the device; None for an index without
    inverted lists."""
    inner = innermost(trained)
    if not isinstance(inner, faiss.IndexIVF):
        return None
    known = _Lists.of(inner, device)

    def encode(vectors: Matrix) -> NDArray[np.uint8]:
        rows = np.ascontiguousarray(_transformed(trained, vectors), np.float32)
        lists = np.ascontiguousarray(known.nearest(rows, 1)[:, 0])
        codes = np.zeros((len(rows), inner.sa_code_size()), np.uint8)
        inner.encode_vectors(
            len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(lists), faiss.swig_ptr(codes), True
        )
        return codes

    return encode


def searcher(index: faiss.Index, device: torch.device) -> Search:
    """Searches on a device; by FAISS on the CPU where the kind of index or the memory forbid it."""
    on_cpu = functools.partial(search, index)
    inner = innermost(index)
    needed = 4 * inner.ntotal * inner.d
    if not isinstance(inner, faiss.IndexFlat | faiss.IndexIVF):
        log.warning("a FAISS index of this kind is searched on the CPU")
        return on_cpu
    if device.type == "cuda" and needed > _SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[0]:
        log.warning("the GPU has no room for the index's vectors: it is searched on the CPU")
        return on_cpu
    return DeviceIndex.of(index, device).search


@dataclass(eq=False)
class DeviceIndex:
    """The vectors (N, D) of an index on a device, in the order of their `ids` (N,), ascending.

    `list_of` (N,) says the inverted list of each, of those that `lists` has.
    """

    index: faiss.Index
    rows: Tensor
    ids: Tensor
    lists: _Lists | None
    list_of: Tensor

    @classmethod
    def of(cls, index: faiss.Index, device: torch.device) -> DeviceIndex:
        """A copy of a flat index, or of one with inverted lists, on the device."""
        inner = innermost(index)
        lists = _Lists.of(inner, device) if isinstance(inner, faiss.IndexIVF) else None
        rows = torch.empty(inner.ntotal, inner.d, device=device)
        list_of = torch.zeros(inner.ntotal, dtype=torch.int64, device=device)
        if isinstance(inner, faiss.IndexIVF):
            for number in range(inner.nlist):
                own, vectors = _of_list(inner, number)
                places = torch.from_numpy(own).to(device)
                rows[places] = torch.from_numpy(vectors).to(device)
                list_of[places] = number
        else:
            for start in range(0, inner.ntotal, _VECTORS_AT_ONCE):
                count = min(_VECTORS_AT_ONCE, inner.ntotal - start)
                part = torch.from_numpy(inner.reconstruct_n(start, count))
                rows[start : start + count] = part.to(device)
        ids = torch.arange(inner.ntotal, device=device)
        return cls(index, rows, ids, lists, list_of)

    @torch.inference_mode()
    def search(self, queries: Matrix, k: int, below: int) -> tuple[Matrix, NDArray[np.int64]]:
        """As `retrieval.faiss_index.search`; equal cosines stand in the order of their ids."""
        k = min(k, len(self.rows))
        if k == 0 or len(queries) == 0:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        device = self.rows.device
        asked = np.ascontiguousarray(_transformed(self.index, queries), np.float32)
        visited = None if self.lists is None else self.lists.visited(asked)
        asked_there = torch.from_numpy(asked).to(device)
        best = torch.full((len(asked), k), -torch.inf, device=device)
        found = torch.full((len(asked), k), -1, dtype=torch.int64, device=device)
        step = max(k, _SCORES_AT_ONCE // len(asked))
        for start in range(0, min(below, len(self.rows)), step):
            part = slice(start, min(start + step, below, len(self.rows)))
            scores = exact_matmul(asked_there, self.rows[part].T)
            if visited is not None:
                scores.masked_fill_(~visited[:, self.list_of[part]], -torch.inf)
            scores = torch.cat([best, scores], 1)
            ids = torch.cat([found, self.ids[part].expand(len(asked), -1)], 1)
            best, order = torch.sort(scores, dim=1, descending=True, stable=True)
            best, found = best[:, :k], torch.gather(ids, 1, order[:, :k])
        found.masked_fill_(best == -torch.inf, -1)
        similarity: Matrix = best.cpu().numpy()
        # As FAISS marks places that nothing fills.
        similarity = np.where(found.cpu().numpy() < 0, np.finfo(np.float32).min, similarity)
        return similarity, found.cpu().numpy()


@dataclass(eq=False)
class _Lists:
    """The centres (L, D) of inverted lists on a device; the nearest maximise x . c + `offset`."""

    centres: Tensor
    offset: Tensor
    visits: int

    @classmethod
    def of(cls, index: faiss.IndexIVF, device: torch.device) -> _Lists:
        quantizer = faiss.downcast_index(index.quantizer)
        centres = torch.from_numpy(quantizer.reconstruct_n(0, index.nlist)).to(device)
        # By Euclidean distance the nearest has the largest x . c - |c|^2 / 2.
        by_product = quantizer.metric_type == faiss.METRIC_INNER_PRODUCT
        offset = -centres.square().sum(1) / 2 * (0 if by_product else 1)
        return cls(centres, offset, visited_lists(index))

    @torch.inference_mode()
    def nearest(self, rows: Matrix, count: int) -> NDArray[np.int64]:
        """(n, count) lists of (n, D) vectors, nearest first."""
        found = [np.empty((0, count), np.int64)]
        for start in range(0, len(rows), _VECTORS_AT_ONCE):
            part = torch.from_numpy(rows[start : start + _VECTORS_AT_ONCE]).to(self.centres.device)
            scores = exact_matmul(part, self.centres.T) + self.offset
            found.append(scores.topk(count, dim=1).indices.cpu().numpy())
        return np.concatenate(found)

    def visited(self, queries: Matrix) -> Tensor:
        """(Q, L): whether a query visits a list."""
        device = self.centres.device
        mask = torch.zeros(len(queries), len(self.centres), dtype=torch.bool, device=device)
        return mask.scatter_(
            1, torch.from_numpy(self.nearest(queries, self.visits)).to(device), True
        )


def _transformed(index: faiss.Index, vectors: Matrix) -> Matrix:
    """Vectors as they stand in the index behind its rotations and projections."""
    while isinstance(index, faiss.IndexPreTransform):
        chain: Any = index.chain  # FAISS's stubs have it as a list
        for place in range(chain.size()):
            transform = faiss.downcast_VectorTransform(chain.at(place))
            vectors = transform.apply(np.ascontiguousarray(vectors, np.float32))
        index = faiss.downcast_index(index.index)
    return vectors


def _of_list(index: faiss.IndexIVF, number: int) -> tuple[NDArray[np.int64], Matrix]:
    """The ids (n,) and vectors (n, D) of one inverted list."""
    lists = index.invlists
    assert lists is not None
    size = lists.list_size(number)
    if size == 0:
        return np.empty(0, np.int64), np.empty((0, index.d), np.float32)
    ids = faiss.rev_swig_ptr(lists.get_ids(number), size).astype(np.int64)
    codes = faiss.rev_swig_ptr(lists.get_codes(number), size * index.code_size)
    whole = np.zeros((size, index.sa_code_size()), np.uint8)
    coarse = whole.shape[1] - index.code_size
    whole[:, :coarse] = np.frombuffer(number.to_bytes(coarse, "little"), np.uint8)
    whole[:, coarse:] = codes.reshape(size, -1)
    return ids, index.sa_decode(whole)
