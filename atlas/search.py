"""Searching the FAISS index of an atlas."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vladmap.atlas import layout, storage
from vladmap.atlas.committed import CommittedFiles
from vladmap.atlas.descriptors import Descriptors
from vladmap.atlas.errors import AtlasError, DamagedAtlas
from vladmap.schemas.rejects import UserError

if TYPE_CHECKING:
    import pandas as pd

    from vladmap.retrieval.faiss_index import Index

Describe = Callable[[Sequence[Any]], NDArray[np.float32]]
_ENTRY = "global"


class SearchIndex:
    """The index of one model. It is opened when it is first searched.

    With `places` it is the index of descriptors averaged over neighbours in space that look the
    same way, which has better recall for photographs of another day.
    """

    def __init__(
        self, files: CommittedFiles, descriptors: Descriptors, describe: Describe, places: bool
    ) -> None:
        self.model, self.places = descriptors.model, places
        self._files, self._stage = files, layout.index_ledger(self.model)
        self._descriptors, self._describe = descriptors, describe

    def __repr__(self) -> str:
        facts = self.facts
        return (
            f"<{facts['factory']} index of {facts['count']} descriptors of {facts['dimension']} "
            f"numbers by {self.model}>"
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """index.json: factory, count, dimension, model_fingerprint, measured recall."""
        data = self._files.data(self._stage, _ENTRY, layout.index_facts(self.model))
        try:
            facts: dict[str, Any] = json.loads(data)
        except ValueError as error:
            path = layout.index_facts(self.model)
            raise DamagedAtlas(f"{self._files.root}/{path}: {error}") from error
        return facts

    @cached_property
    def image_ids(self) -> NDArray[np.str_]:
        """(N,) str: the image of each row of the index."""
        path = layout.index_ids(self.model)
        table = self._files.table(self._stage, _ENTRY, path, ["image_id"])
        return table["image_id"].to_numpy().astype(str)

    @cached_property
    def faiss(self) -> Index:
        """The FAISS index itself: inner product, rows as in `image_ids`.

        Of a local atlas its vectors stay in the file until they are searched.
        """
        from vladmap.retrieval.index_parts import open_index

        path = (layout.places_index if self.places else layout.global_index)(self.model)
        place = self._files.checked(self._stage, _ENTRY, path)
        try:
            index = open_index(storage.local_copy(place))
        except (OSError, UserError) as error:
            raise DamagedAtlas(f"{self._files.root}/{path}: {error}") from error
        if index.ntotal != len(self.image_ids):
            raise DamagedAtlas(
                f"{self._files.root}/{path} has {index.ntotal} rows, its ids {len(self.image_ids)}"
            )
        return index

    def committed(self) -> list[str]:
        """Local paths of the index's files, checked: global.faiss, places.faiss, their ids, facts.

        Those of an object store are copies that last as long as the process.
        """
        names = (layout.global_index, layout.places_index, layout.index_ids, layout.index_facts)
        return [
            storage.local_copy(self._files.checked(self._stage, _ENTRY, name(self.model)))
            for name in names
        ]

    def search(self, queries: Any, k: int = 10) -> pd.DataFrame:
        """The `k` most similar images of each query, best first.

        `queries` are descriptors by this atlas's model, (Q, D) or (D,), or photographs: one or a
        list of paths or (H, W, 3) uint8 upright RGB arrays, which that model describes. The result
        has a row for each of the `k` of each query: `query` (its number, from 0), `rank` (from 0),
        `image_id`, `similarity` (the cosine). Raises AtlasError for descriptors of another length.
        """
        vectors = self._vectors(queries)
        similarity, rows = self._nearest(vectors, k)
        return self._frame(np.arange(len(vectors)), similarity, rows)

    def neighbours(self, image_ids: str | Sequence[str], k: int = 10) -> pd.DataFrame:
        """The `k` images most similar to each of these images of the atlas, itself left out.

        The result is as that of `search`; its column `query` has the image's id. Raises NotInAtlas
        where an image has no descriptor.
        """
        wanted = [image_ids] if isinstance(image_ids, str) else list(image_ids)
        similarity, rows = self._nearest(self._descriptors.of(wanted), k + 1)
        others = self.image_ids[rows] != np.array(wanted, dtype=str)[:, None]
        others[others.all(axis=1), -1:] = False  # not among its own k + 1: the last is removed
        shape = (len(wanted), max(0, rows.shape[1] - 1))
        return self._frame(
            np.array(wanted, dtype=object),
            similarity[others].reshape(shape),
            rows[others].reshape(shape),
        )

    def _nearest(
        self, vectors: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        from vladmap.retrieval.faiss_index import search

        if k < 1:
            raise AtlasError(f"k = {k}: ask for one image or more")
        return search(self.faiss, vectors, k)

    def _vectors(self, queries: Any) -> NDArray[np.float32]:
        numeric = isinstance(queries, np.ndarray) and queries.dtype.kind == "f"
        if not numeric:
            photographs = [queries] if _is_photograph(queries) else list(queries)
            if photographs and all(map(_is_photograph, photographs)):
                return self._describe(photographs)
        vectors = np.atleast_2d(np.ascontiguousarray(queries, dtype=np.float32))
        if vectors.shape[1:] != (self.faiss.d,):
            raise AtlasError(
                f"queries of shape {np.shape(queries)}: descriptors by {self.model} have "
                f"{self.faiss.d} numbers"
            )
        return vectors

    def _frame(
        self,
        queries: NDArray[np.generic],
        similarity: NDArray[np.float32],
        rows: NDArray[np.int64],
    ) -> pd.DataFrame:
        import pandas as pd

        count, k = rows.shape
        frame = pd.DataFrame(
            {
                "query": np.repeat(queries, k),
                "rank": np.tile(np.arange(k), count),
                "image_id": self.image_ids[rows.ravel()],
                "similarity": similarity.ravel(),
            }
        )
        # An approximate index may have visited fewer than k.
        return frame[rows.ravel() >= 0].reset_index(drop=True)


def _is_photograph(item: Any) -> bool:
    """Whether this is a path or the pixels of one photograph."""
    if isinstance(item, np.ndarray):
        return item.ndim == 3 and item.dtype == np.uint8
    return isinstance(item, str) or hasattr(item, "__fspath__")
