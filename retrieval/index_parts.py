"""Parts of a FAISS index, and the index that they are merged into, in bounded memory.

A part has the codes of a shard's vectors and nothing of the trained index: its centroids are as
large as thousands of vectors, and would stand in each part again. The merged file is byte for byte
the one that FAISS writes of an index to which all vectors were added at once. Inverted lists and
plain vectors stand at the end of such a file, so they are put there a batch of codes at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO

import faiss
import numpy as np
from numpy.typing import NDArray

from vladmap.retrieval.faiss_index import innermost
from vladmap.schemas.rejects import UserError

if TYPE_CHECKING:
    import torch

Codes = NDArray[np.uint8]
"""(n, C) bytes: what the index keeps of each of n vectors, behind the number of its list if any."""

Parts = Callable[[], Iterable[Codes]]
"""The parts in the order of the shards; called once for each pass over them."""

_BATCH_BYTES = 256 << 20
_EMPTY_LISTS = 32  # bytes of FAISS's section of inverted lists, when all are empty
_ID_BYTES = 8


def encoder(
    trained: faiss.Index, device: torch.device | None = None
) -> Callable[[NDArray[np.float32]], Codes]:
    """`encode` by one trained index, whose lists are looked for on a GPU's `device`, if any."""
    if device is not None:
        # Brings torch, which building an index on a CPU does without.
        from vladmap.retrieval import device_index

        if (found := device_index.encoder(trained, device)) is not None:
            return found
    return functools.partial(encode, trained)


def encode(trained: faiss.Index, vectors: NDArray[np.float32]) -> Codes:
    """Codes (n, C) of (n, D) vectors by a trained index, which stays as it is.

    Raises UserError for a kind of index whose vectors are not codes of their own.
    """
    try:
        codes: Codes = trained.sa_encode(vectors)
    except RuntimeError as error:
        raise _refused() from error
    return codes


def write_merged(trained: faiss.Index, parts: Parts, path: str) -> int:
    """Write the trained index with all parts added, under ids that count on; returns their number.

    Of inverted lists and of plain vectors a batch of codes is in memory; other kinds, whose codes
    are short, are held whole. Raises ValueError without parts, UserError for a kind of index that
    cannot be filled with codes.
    """
    inner = innermost(trained)
    if not any(True for _ in parts()):
        raise ValueError("no parts to merge")
    if isinstance(inner, faiss.IndexIVF):
        if not _has_plain_lists(trained):
            raise _refused()
        return _write_lists(trained, inner, parts, path)
    if isinstance(inner, faiss.IndexFlat):
        return _write_flat(trained, parts, path)
    for codes in parts():
        try:
            inner.add_sa_codes(codes, None)
        except RuntimeError as error:
            raise _refused() from error
    trained.ntotal = inner.ntotal
    faiss.write_index(trained, path)
    return int(trained.ntotal)


def open_index(path: str) -> faiss.Index:
    """The index in a local file; lists and plain vectors stay in the file until they are searched.

    Raises UserError where the file is no index.
    """
    with open(path, "rb") as file:
        has_lists = file.read(2) == b"Iw"
    try:
        index = faiss.read_index(path, faiss.IO_FLAG_MMAP if has_lists else faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{path} is not a FAISS index: {reason}") from error
    if isinstance(index, faiss.IndexIVF) and index.invlists is not None:
        lists = faiss.downcast_InvertedLists(index.invlists)
        if isinstance(lists, faiss.OnDiskInvertedLists):
            lists.prefetch_nthread = 0  # by default a search starts 32 threads that read ahead
    return index


def _refused() -> UserError:
    return UserError(
        "--factory: FAISS cannot merge the parts of such an index: use Flat, SQ8, PQ or "
        "IVF<lists>,<one of these>"
    )


def _has_plain_lists(trained: faiss.Index) -> bool:
    """Whether FAISS writes lists as _write_lists does; those of some kinds are interleaved."""
    tail: bytes = faiss.serialize_index(trained)[-_EMPTY_LISTS:].tobytes()
    return tail.startswith(b"ilar")


def _head(trained: faiss.Index, count: int, tail: int) -> bytes:
    """FAISS's bytes of the index with `count` vectors, but for the last `tail` of an empty one."""
    layers = [trained]
    while isinstance(layers[-1], faiss.IndexPreTransform):
        layers.append(faiss.downcast_index(layers[-1].index))
    for layer in layers:
        layer.ntotal = count
    data: bytes = faiss.serialize_index(trained)[:-tail].tobytes()
    for layer in layers:
        layer.ntotal = 0
    return data


def _write_flat(trained: faiss.Index, parts: Parts, path: str) -> int:
    """Plain vectors: the last field is how many numbers there are, and the numbers."""
    count, numbers = 0, 0
    for codes in parts():
        count, numbers = count + len(codes), numbers + codes.size // 4
    with open(path, "wb") as file:
        file.write(_head(trained, count, tail=8) + np.uint64(numbers).tobytes())
        for codes in parts():
            file.write(np.ascontiguousarray(codes).data)
    return count


def _write_lists(trained: faiss.Index, inner: faiss.IndexIVF, parts: Parts, path: str) -> int:
    """Inverted lists: their lengths, then the codes and the ids of each."""
    lists, number_bytes = inner.nlist, inner.sa_code_size() - inner.code_size
    sizes = np.zeros(lists, np.int64)
    for codes in parts():
        sizes += np.bincount(_list_numbers(codes, number_bytes), minlength=lists)
    count = int(sizes.sum())
    head = _head(trained, count, _EMPTY_LISTS) + _lengths(sizes, inner.code_size)
    row = inner.code_size + _ID_BYTES
    starts = len(head) + row * (np.cumsum(sizes) - sizes)
    filled = np.zeros(lists, np.int64)
    with open(path, "wb") as file:
        file.write(head)
        first = 0
        for codes in _batches(parts()):
            numbers = _list_numbers(codes, number_bytes)
            order = np.argsort(numbers, kind="stable")
            here, begins = np.unique(numbers[order], return_index=True)
            own, ids = codes[order, number_bytes:], order + first
            for number, begin, end in zip(
                here.tolist(), begins.tolist(), [*begins[1:].tolist(), len(order)], strict=True
            ):
                done = int(filled[number])
                start = int(starts[number])
                _put(file, start + done * inner.code_size, own[begin:end])
                after = start + int(sizes[number]) * inner.code_size
                _put(file, after + done * _ID_BYTES, ids[begin:end])
                filled[number] += end - begin
            first += len(codes)
    return count


def _lengths(sizes: NDArray[np.int64], code_size: int) -> bytes:
    """FAISS's head of a section of inverted lists: all lengths, or where few lists have any, those
    with their numbers."""
    there = np.flatnonzero(sizes)
    few = len(there) <= len(sizes) // 2
    said = np.stack([there, sizes[there]], axis=1).ravel() if few else sizes
    return b"".join(
        [
            b"ilar" + np.array([len(sizes), code_size], np.uint64).tobytes(),
            b"sprs" if few else b"full",
            np.uint64(len(said)).tobytes() + said.astype(np.uint64).tobytes(),
        ]
    )


def _list_numbers(codes: Codes, number_bytes: int) -> NDArray[np.int64]:
    """The list (n,) that each vector goes to, little-endian in the first bytes of its code."""
    weights = 256 ** np.arange(number_bytes, dtype=np.int64)
    numbers: NDArray[np.int64] = codes[:, :number_bytes].astype(np.int64) @ weights
    return numbers


def _batches(parts: Iterable[Codes]) -> Iterator[Codes]:
    """The parts, joined to batches of at most _BATCH_BYTES where they are smaller."""
    waiting: list[Codes] = []
    held = 0
    for codes in parts:
        if not len(codes):
            continue
        if waiting and held + codes.nbytes > _BATCH_BYTES:
            yield np.concatenate(waiting)
            waiting, held = [], 0
        waiting.append(codes)
        held += codes.nbytes
    if waiting:
        yield np.concatenate(waiting)


def _put(file: BinaryIO, at: int, values: NDArray[np.generic]) -> None:
    file.seek(at)
    file.write(np.ascontiguousarray(values).data)
