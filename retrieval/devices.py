"""Exact search, and FAISS's training, on the CPU or a GPU, with the same neighbours up to rounding.

Matrix products and their order are computed by torch, which a GPU has in any case; equal scores
stand in the order of their rows. k-means is FAISS's own, which needs a build of FAISS for GPUs.
torch is imported where a product is computed by it: building an index on a CPU loads none.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import faiss
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

log = logging.getLogger("vladmap")

Matrix = NDArray[np.float32]

CPU = "cpu"


def inner_products(queries: Matrix, rows: Matrix, device: str = CPU) -> Matrix:
    """(Q, D) and (N, D) -> their inner products (Q, N), in float32 on either device."""
    if device == CPU:
        return queries @ rows.T
    import torch

    return products_by_torch(queries, rows, torch.device(device))


def best_first(scores: Matrix, device: str = CPU) -> NDArray[np.int64]:
    """The columns (Q, N) of each row of scores (Q, N), highest first, equal ones ascending."""
    if device == CPU:
        return np.argsort(-scores, axis=1, kind="stable")
    import torch

    return order_by_torch(scores, torch.device(device))


def products_by_torch(queries: Matrix, rows: Matrix, device: torch.device) -> Matrix:
    """`inner_products` as a matrix product of torch, without the rounding of TF32."""
    import torch

    left, right = (
        torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in (queries, rows)
    )
    found: Matrix = exact_matmul(left, right.T).cpu().numpy()
    return found


def exact_matmul(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """A matrix product in float32, without the rounding of TF32 on a GPU."""
    import torch

    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        return left @ right
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def order_by_torch(scores: Matrix, device: torch.device) -> NDArray[np.int64]:
    """`best_first` as a stable sort of torch."""
    import torch

    values = torch.from_numpy(np.ascontiguousarray(scores)).to(device)
    order: NDArray[np.int64] = (
        torch.sort(values, dim=1, descending=True, stable=True).indices.cpu().numpy()
    )
    return order


def faiss_computes_on(device: str) -> bool:
    """Whether a GPU is asked for and FAISS has one; where it has none a warning says so."""
    if device == CPU:
        return False
    there = bool(getattr(faiss, "get_num_gpus", int)())
    if not there:
        log.warning("FAISS is no build for GPUs (pip install '.[gpu]'): k-means runs on the CPU")
    return there


def flat_on_gpu(dimension: int, inner_product: bool) -> faiss.Index:
    """An empty exact index on all GPUs, by which FAISS assigns vectors to the centres it trains."""
    index = faiss.IndexFlatIP(dimension) if inner_product else faiss.IndexFlatL2(dimension)
    return faiss.index_cpu_to_all_gpus(index)
