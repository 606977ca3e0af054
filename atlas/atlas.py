"""The door to an atlas for Python: open it, read its tables, search it, open its models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vladmap.atlas import layout, storage
from vladmap.atlas.committed import CommittedFiles
from vladmap.atlas.descriptors import Descriptors
from vladmap.atlas.errors import (
    AtlasError,
    NotAnAtlas,
    NotBuiltYet,
    NotInAtlas,
)
from vladmap.atlas.frames import frame, joined
from vladmap.atlas.local_features import StoredFeatures
from vladmap.atlas.reconstructions import Reconstructions
from vladmap.atlas.search import SearchIndex
from vladmap.atlas.store import AtlasStore
from vladmap.schemas import loop_tables, tables
from vladmap.schemas.rejects import UserError

if TYPE_CHECKING:
    import geopandas
    import pandas as pd

    from vladmap.models.base import DescriptorModel

_AT_ONCE = 16
_WEIGHTS = "weights"
# For each table: its schema, the stage that makes it, its name in the ledger.
_TABLES = {
    layout.IMAGES: (tables.IMAGES, "ingest", layout.INGEST_LEDGER),
    layout.PAIRS: (tables.PAIRS, "pair", layout.PAIR_LEDGER),
    layout.TWO_VIEWS: (tables.TWO_VIEWS, "verify", layout.VERIFY_LEDGER),
    layout.POSES: (tables.POSES, "merge", layout.MERGE_LEDGER),
    layout.UNREGISTERED: (tables.UNREGISTERED, "merge", layout.MERGE_LEDGER),
    layout.COVERAGE: (tables.COVERAGE, "coverage", "coverage"),
    layout.LOOPS: (loop_tables.LOOPS, "reconstruct", layout.LOOPS_LEDGER),
    layout.DRIVES: (loop_tables.DRIVES, "reconstruct", layout.LOOPS_LEDGER),
}


class Atlas:
    """An atlas, to be read: tables as frames, descriptors as arrays, an index, COLMAP models.

    `path` is its folder, on local disk or any filesystem that Beam knows. `photographs` is where
    the collection lies now, if it has moved since the build. Opening writes nothing and takes no
    lock; the atlas may be read-only, a copy, or written by a build at this moment: each method
    reads what is committed when it is called. Small tables are frames; what is large is read when
    it is asked for, shard by shard.

    Raises NotAnAtlas for a path without one. Every method raises DamagedAtlas for a file that is
    not what the ledger says, and NotBuiltYet where the stage that makes it has not run.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, photographs: str | os.PathLike[str] | None = None
    ) -> None:
        root = os.fspath(path)
        if storage.is_local(root) and not os.path.isdir(root):
            raise NotAnAtlas(f"{root} is not there, or no folder")
        try:
            store = AtlasStore.open(root, create=False, write=False)
        except UserError as error:
            raise NotAnAtlas(str(error)) from error
        self._loaded_model: tuple[tuple[str, str, str], DescriptorModel] | None = None
        self.root = store.root
        self.manifest: dict[str, Any] = store.manifest
        self._photographs = None if photographs is None else os.fspath(photographs).rstrip("/")
        self._files = CommittedFiles(store.root, store.reader)

    def __repr__(self) -> str:
        counts = self.manifest.get("counts")
        facts = [f"{counts.get('images')} images"] if isinstance(counts, dict) else []
        facts += [f"descriptors by {', '.join(self.models)}"] if self.models else []
        facts += [f"features {', '.join(self.feature_kinds)}"] if self.feature_kinds else []
        if isinstance(counts, dict):
            if "verified_pairs" in counts:
                facts.append(f"{counts['verified_pairs']} of {counts.get('pairs')} pairs verified")
            if "registered" in counts:
                facts.append(f"{counts['registered']} images with a pose")
        return f"<Atlas {self.root}: {', '.join(facts) or 'nothing yet'}>"

    @property
    def models(self) -> list[str]:
        """Names of the models that this atlas has descriptors by."""
        return self._named(layout.DESCRIBE_PREFIX)

    @property
    def feature_kinds(self) -> list[str]:
        """Kinds of local features that this atlas has."""
        return self._named(layout.FEATURES_PREFIX)

    @property
    def has_map(self) -> bool:
        """Whether photographs were mapped: `poses` and `reconstructions` have something to give."""
        return self._files.has_entries(layout.MERGE_LEDGER)

    def images(self, columns: Iterable[str] | None = None) -> geopandas.GeoDataFrame | pd.DataFrame:
        """One row a photograph that was accepted: what it is, where and when it was taken.

        The columns of `images/` in docs/atlas.md, or those named: a GeoDataFrame where `geometry`
        is among them. Raises NotInAtlas for a column that is not there; so do the other tables.
        """
        return self._frame(layout.IMAGES, columns)

    def pairs(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """One row a candidate pair: where it came from, its similarity, ranks and distance."""
        return self._frame(layout.PAIRS, columns)

    def two_views(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """One row a verified or refused pair: matches, inliers, matrices, relative pose, verdict.

        `verdict` and `probability` say whether both photographs see the same surface, the columns
        after them why; they are missing until `reconstruct` has judged all pairs together.
        `matches` and `inliers` are (n, 2) uint32 arrays of keypoints; `fundamental`, `essential`,
        `homography` (3, 3) arrays or None. They are most of its bytes: of a large atlas take some
        columns, or `shards("two_views")`.
        """
        return self._frame(layout.TWO_VIEWS, columns)

    def poses(self, columns: Iterable[str] | None = None) -> geopandas.GeoDataFrame | pd.DataFrame:
        """One row a photograph in the map: where its camera was and how it was turned."""
        return self._frame(layout.POSES, columns)

    def unregistered(
        self, columns: Iterable[str] | None = None
    ) -> geopandas.GeoDataFrame | pd.DataFrame:
        """One row a photograph that is not in the map, with the stage and reason."""
        return self._frame(layout.UNREGISTERED, columns)

    def coverage(
        self, columns: Iterable[str] | None = None
    ) -> geopandas.GeoDataFrame | pd.DataFrame:
        """One row an H3 cell: how many photographs, how many in the map; its outline."""
        return self._frame(layout.COVERAGE, columns)

    def loops(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """One row a verified pair of two drives, or of places far apart in one: kept or not."""
        return self._frame(layout.LOOPS, columns)

    def drives(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """One row a drive: its length, and what its odometry drifts from the pose graph."""
        return self._frame(layout.DRIVES, columns)

    def rejects(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """One row a photograph that a stage could not use, with the reason in a word and in words.

        Of all models and kinds of features; empty where nothing was rejected.
        """
        self._need(layout.INGEST_LEDGER, "ingest", layout.IMAGES)
        chosen = _chosen(tables.REJECTS, layout.REJECTS, columns)
        parts = (
            part
            for stage in self._files.stages()
            for part in self._files.tables(stage, layout.REJECTS, chosen)
        )
        return frame(joined(parts, tables.REJECTS, chosen))

    def shards(self, table: str, columns: Iterable[str] | None = None) -> Iterator[pd.DataFrame]:
        """A table as one frame a shard, for those that do not fit into memory.

        `table` is `images`, `pairs` or `two_views`; each frame is as that method gives it.
        """
        if table not in (layout.IMAGES, layout.PAIRS, layout.TWO_VIEWS):
            raise NotInAtlas(f"{table!r} has no shards: images, pairs and two_views have")
        schema, _, _ = _TABLES[table]
        chosen = _chosen(schema, table, columns)
        return (frame(joined([part], schema, chosen)) for part in self._parts(table, chosen))

    def descriptors(self, model: str | None = None) -> Descriptors:
        """Global descriptors by a model; without a name by the one of the last build."""
        return Descriptors(self._files, self._model(model))

    def index(self, model: str | None = None, *, places: bool = False) -> SearchIndex:
        """The index of a model's descriptors, to be searched by descriptor or by photograph.

        `places` takes the one whose descriptors are averaged over neighbours in space: it finds
        more for photographs from outside the collection.
        """
        name = self._model(model)
        self._need(layout.index_ledger(name), "index", f"index of {name}")
        return SearchIndex(
            self._files,
            Descriptors(self._files, name),
            lambda photographs: self.describe(photographs, name),
            places,
        )

    def model(
        self, name: str | None = None, *, device: str = "cpu", precision: str = "float32"
    ) -> DescriptorModel:
        """The model that made the descriptors, with its weights in this atlas.

        `device` is `cpu` or `cuda`, `precision` that of the build. Raises AtlasError where its
        fingerprint is not that of the descriptors.
        """
        from vladmap.models import load_model

        name = self._model(name)
        ledger = layout.weights_ledger(name)
        entries = self._need(ledger, "describe", f"weights of {name}")
        path = entries[_WEIGHTS].file.path if _WEIGHTS in entries else ""
        place = storage.local_copy(self._files.checked(ledger, _WEIGHTS, path))
        model = load_model(name, checkpoint=place, device=device, precision=precision)
        stored = self.descriptors(name).fingerprint
        if model.spec.fingerprint != stored:
            raise AtlasError(
                f"{self.root}: the descriptors by {name} are of {stored}, its weights now make "
                f"{model.spec.fingerprint}: another version made them, or a build is at work"
            )
        return model

    def describe(
        self,
        photographs: Iterable[str | os.PathLike[str] | NDArray[np.uint8]],
        model: str | None = None,
        *,
        device: str = "cpu",
    ) -> NDArray[np.float32]:
        """(N, D) float32 descriptors of photographs, to be searched for in this atlas.

        These are paths, or (H, W, 3) uint8 RGB arrays of upright images. Raises MissingPhotograph
        for a file that cannot be read as a photograph.
        """
        from vladmap.atlas.pixels import of_query

        loaded = self._loaded(self._model(model), device)
        items, parts = list(photographs), []
        for start in range(0, len(items), _AT_ONCE):
            pixels = [
                of_query(item, loaded.input_long_side) for item in items[start : start + _AT_ONCE]
            ]
            parts.append(loaded.describe(pixels))
        return np.concatenate([np.zeros((0, loaded.spec.dimension), np.float32), *parts])

    def features(self, kind: str | None = None) -> StoredFeatures:
        """Local features of a kind by image id; without a name of the kind of the last build."""
        return StoredFeatures(self._files, self._choice(kind, "features", self.feature_kinds))

    def reconstructions(self) -> Reconstructions:
        """The COLMAP models of the map, those with most images first, opened when asked to."""
        self._need(layout.MERGE_LEDGER, "merge", "map")
        return Reconstructions(self._files)

    def photograph(self, image_id: str, *, long_side: int | None = None) -> NDArray[np.uint8]:
        """The pixels of a photograph of the collection, (H, W, 3) uint8 RGB, upright.

        With `long_side` they are reduced to so many pixels at most. Raises NotInAtlas for an id
        that is not in `images/`, MissingPhotograph where the file is not what it was.
        """
        from vladmap.atlas.photographs import SHARD_ROWS
        from vladmap.atlas.pixels import of_collection

        for part in self._parts(layout.IMAGES, [*SHARD_ROWS.names, "name"]):
            for row in part.filter(pc.equal(part["image_id"], image_id)).to_pylist():
                return of_collection(row, self._photographs, long_side)
        raise NotInAtlas(f"{self.root} has no image {image_id!r}")

    def _frame(self, table: str, columns: Iterable[str] | None) -> Any:
        schema, _, _ = _TABLES[table]
        chosen = _chosen(schema, table, columns)
        return frame(joined(self._parts(table, chosen), schema, chosen))

    def _parts(self, table: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        schema, stage, ledger = _TABLES[table]
        self._need(ledger, stage, table)
        # An older version may have written shards without columns that were added since.
        optional = [field.name for field in schema if field.nullable]
        return self._files.tables(ledger, table, columns, optional)

    def _need(self, ledger: str, stage: str, what: str) -> dict[str, Any]:
        entries = self._files.entries(ledger)
        if not entries:
            raise NotBuiltYet(
                f"{self.root} has no {what} yet: run `vladmap {stage}` or `vladmap build`"
            )
        return entries

    def _named(self, prefix: str) -> list[str]:
        """The names that follow the prefix in those names of the ledger that have entries."""
        return [
            stage.removeprefix(prefix)
            for stage in self._files.stages()
            if stage.startswith(prefix) and self._files.has_entries(stage)
        ]

    def _model(self, name: str | None) -> str:
        return self._choice(name, "model", self.models)

    def _choice(self, name: str | None, option: str, known: Sequence[str]) -> str:
        """The name that is asked for, else that of the last build, else the only one."""
        what, stage = {
            "model": ("descriptors", "describe"),
            "features": ("features", "verify"),
        }[option]
        if not known:
            raise NotBuiltYet(
                f"{self.root} has no {what} yet: run `vladmap {stage}` or `vladmap build`"
            )
        if name is None:
            name = self.manifest.get("report", {}).get(option)
            if name not in known:
                name = known[0] if len(known) == 1 else None
        if name not in known:
            asked = "several" if name is None else f"no {what} by {name}"
            raise NotInAtlas(f"{self.root} has {asked}: name one of {', '.join(known)}")
        return str(name)

    def _loaded(self, name: str, device: str) -> DescriptorModel:
        """The model, which stays loaded as long as its fingerprint is that of the descriptors."""
        key = (name, device, self.descriptors(name).fingerprint)
        if self._loaded_model is None or self._loaded_model[0] != key:
            self._loaded_model = (key, self.model(name, device=device))
        return self._loaded_model[1]


def _chosen(schema: pa.Schema, table: str, columns: Iterable[str] | None) -> list[str] | None:
    if columns is None:
        return None
    chosen = [columns] if isinstance(columns, str) else list(columns)
    if unknown := [name for name in chosen if name not in schema.names]:
        raise NotInAtlas(
            f"{table} has no column {', '.join(unknown)}: it has {', '.join(schema.names)}"
        )
    return chosen
