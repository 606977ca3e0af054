"""The door to localisation: an atlas that is loaded once, and photographs to be placed in it."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vladmap.atlas.atlas import Atlas
from vladmap.atlas.errors import AtlasError
from vladmap.atlas.extracting import extractor
from vladmap.atlas.photographs import photo_bytes
from vladmap.atlas.pixels import of_query
from vladmap.features.names import NEAREST
from vladmap.features.registry import feature_kind, load_matcher, matching_device
from vladmap.localisation.judge import judge
from vladmap.localisation.locate import gather
from vladmap.localisation.map_view import MapView
from vladmap.localisation.query import Query
from vladmap.localisation.settings import LocaliseSettings
from vladmap.localisation.table import rejected_row, row_of
from vladmap.photos.decoding.bounds import MAX_PIXELS
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.headers.rows import header_row
from vladmap.photos.ids import image_id
from vladmap.schemas.rejects import PhotoError


@dataclass(frozen=True)
class Asked:
    """A photograph to be placed: its name among the queries, and where it is read.

    `overrides` is the JSON of what a manifest says of it.
    """

    name: str
    uri: str
    overrides: str | None = None

    @property
    def names(self) -> dict[str, str]:
        """The columns of its row that say which photograph it is."""
        return {"image_id": image_id(self.name), "name": self.name, "uri": self.uri}


class Localiser:
    """Places photographs in an atlas; all that it needs of the atlas stays loaded.

    `model` and `features` are names, where the atlas has several; without one, those of the last
    build. The same photograph gives the same answer, on one device.

    Raises NotBuiltYet for an atlas without an index, UserError where a matcher does not match the
    atlas's features.
    """

    def __init__(
        self,
        atlas: Atlas,
        *,
        model: str | None = None,
        features: str | None = None,
        matcher: str = NEAREST,
        settings: LocaliseSettings | None = None,
        device: str = "cpu",
    ) -> None:
        self.settings = settings or LocaliseSettings()
        self._atlas, self._device = atlas, device
        self._view = MapView(atlas, model, features)
        stored = self._view.features
        self._matcher = (
            None
            if stored is None
            else load_matcher(stored.kind, matcher, matching_device(matcher, device))
        )
        self._lock = threading.Lock()

    @cached_property
    def _model(self) -> Any:
        return self._atlas.model(self._view.index.model, device=self._device)

    def locate(self, photograph: str | os.PathLike[str] | NDArray[np.uint8]) -> dict[str, Any]:
        """Where one photograph was taken: a row of `localisations` (docs/atlas.md).

        `photograph` is a path, or the (H, W, 3) uint8 RGB pixels of an upright picture, of which
        neither GPS nor camera is known. One that cannot be used has the status `unknown`, and why.
        """
        if isinstance(photograph, np.ndarray):
            of_query(photograph, self._model.input_long_side)  # AtlasError for another array
            height, width = photograph.shape[:2]
            query = self._query(photograph, photograph, {"width": width, "height": height})
            return self._row(Asked("pixels", "").names, query)
        path = os.fspath(photograph)
        return self.locate_all([Asked(path, path)])[0]

    def locate_all(self, asked: Sequence[Asked]) -> list[dict[str, Any]]:
        """Where photographs were taken, in their order; each has its row, whatever is wrong."""
        return [self._one(each) for each in asked]

    def _one(self, asked: Asked) -> dict[str, Any]:
        try:
            data = photo_bytes(asked.uri, MAX_PIXELS)
            facts = header_row(data, asked.overrides, MAX_PIXELS)
            small = decode_rgb(data, max_pixels=MAX_PIXELS, target=self._model.input_long_side)
            pixels = decode_rgb(data, max_pixels=MAX_PIXELS)
        except PhotoError as error:
            return rejected_row(asked.names, error)
        return self._row(asked.names, self._query(small, pixels, facts))

    def _query(
        self, small: NDArray[np.uint8], pixels: NDArray[np.uint8], facts: Mapping[str, Any]
    ) -> Query:
        features = None
        if (stored := self._view.features) is not None:
            kind = feature_kind(stored.kind)
            found = extractor(kind.name, kind.device(self._device)).extract(pixels)
            features = found if len(found) else None
        return Query(dict(facts), self._model.describe([small])[0], features)

    def _row(self, names: dict[str, str], query: Query) -> dict[str, Any]:
        with self._lock:  # shards of features and the map are read once
            evidence = gather(self._view, query, self.settings, self._matcher)
        verdict = judge(self._view, query, evidence, self.settings)
        return row_of(self._view, names, evidence, verdict)


def opened(atlas: str, **settings: Any) -> Localiser:
    """The localiser of the atlas at a path. Raises AtlasError where it has no index."""
    found = Atlas(atlas)
    if not found.models:
        raise AtlasError(f"{atlas} has no descriptors yet: run `vladmap build`")
    return Localiser(found, **settings)
