"""The door to localisation: an atlas that is loaded once, and photographs to be placed in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vladmap.atlas.atlas import Atlas
from vladmap.atlas.pixels import of_query
from vladmap.features.names import NEAREST
from vladmap.features.registry import feature_kind, load_matcher, matching_device
from vladmap.localisation.evidence import inlier_lines
from vladmap.localisation.judge import judge
from vladmap.localisation.locate import Evidence, gather
from vladmap.localisation.map_view import MapView
from vladmap.localisation.preparing import Asked, Prepared, features_of, prepare
from vladmap.localisation.query import Query
from vladmap.localisation.settings import LocaliseSettings
from vladmap.localisation.table import rejected_row, row_of


class Localiser:
    """Places photographs in an atlas; all that it needs of the atlas stays loaded.

    `model` and `features` are names, where the atlas has several; without one, those of the last
    build. The same photograph gives the same answer, on one device. Several threads may ask.

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
        self.atlas, self._device = atlas, device
        self._view = MapView(atlas, model, features)
        stored = self._view.features
        self._matcher = (
            None
            if stored is None
            else load_matcher(stored.kind, matcher, matching_device(matcher, device))
        )

    @cached_property
    def _model(self) -> Any:
        return self.atlas.model(self._view.index.model, device=self._device)

    @property
    def prepare(self) -> Callable[[Asked], Prepared]:
        """What reads a photograph and extracts its features; it can be pickled."""
        stored, target = self._view.features, self._model.spec.input_size.target
        if stored is None:
            return partial(prepare, target=target, detector=None)
        device = feature_kind(stored.kind).device(self._device)
        return partial(prepare, target=target, detector=stored.kind, device=device)

    @property
    def prepares_in_processes(self) -> bool:
        """Whether photographs are prepared side by side in processes: threads would wait."""
        stored = self._view.features
        return stored is not None and feature_kind(stored.kind).parallelism == "processes"

    def locate(self, photograph: str | os.PathLike[str] | NDArray[np.uint8]) -> dict[str, Any]:
        """Where one photograph was taken: a row of `localisations` (docs/atlas.md).

        `photograph` is a path, or the (H, W, 3) uint8 RGB pixels of an upright picture, of which
        neither GPS nor camera is known. One that cannot be used has the status `unknown`, and why.
        """
        if not isinstance(photograph, np.ndarray):
            path = os.fspath(photograph)
            return self.row(self.prepare(Asked(path, path)))
        pixels = of_query(photograph, self._model.input_long_side)  # AtlasError for another array
        stored, facts = self._view.features, {"width": pixels.shape[1], "height": pixels.shape[0]}
        features = None if stored is None else features_of(pixels, stored.kind)
        return self.row(Prepared(Asked("pixels", "").names, facts, pixels, features))

    def row(self, prepared: Prepared) -> dict[str, Any]:
        """The row of a photograph, whatever is wrong with it."""
        return self.answer(prepared)[0]

    def answer(self, prepared: Prepared) -> tuple[dict[str, Any], NDArray[np.float64]]:
        """The row of a photograph, and the inliers that it shares with its place, to be drawn.

        These are (k, 4): x, y in the query and x, y in the photograph of the place, as shares of
        the upright pictures' widths and heights; none where no pose was found.
        """
        names, none = dict(prepared.names), np.zeros((0, 4))
        if prepared.pixels is None:
            assert prepared.error is not None
            return rejected_row(names, prepared.error), none
        query, evidence = self.evidence(prepared)
        verdict = judge(self._view, query, evidence, self.settings)
        row = row_of(self._view, names, evidence, verdict)
        best, place = evidence.best, verdict.place
        if best is None or place is None or query.features is None:
            return row, none
        theirs = self._view.features_of(place.image_id)
        if theirs is None or theirs.size is None or place.image_id not in best.model.row:
            return row, none
        lines = inlier_lines(best, place.rank, place.image_id, query.features, theirs)
        return row, lines / [*query.size, *theirs.size]

    def evidence(self, prepared: Prepared) -> tuple[Query, Evidence]:
        """What is known of a photograph that could be read, and what the atlas says of it."""
        assert prepared.pixels is not None
        descriptor = self._model.describe([prepared.pixels])[0]
        query = Query(dict(prepared.facts), descriptor, prepared.features)
        return query, gather(self._view, query, self.settings, self._matcher)
