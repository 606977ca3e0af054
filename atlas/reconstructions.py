"""The COLMAP models of an atlas, read on demand."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vladmap.atlas import layout, storage
from vladmap.atlas.committed import CommittedFiles
from vladmap.atlas.errors import AtlasError, DamagedAtlas

if TYPE_CHECKING:
    from vladmap.features.colmap import pycolmap

_ENTRY = "model"


class StoredReconstruction:
    """One COLMAP model of the map, `model/<number>/`, which is read on demand.

    If it is georegistered its frame is east, north, up in metres with the origin `origin`;
    otherwise it is an arbitrary frame of its own.
    """

    def __init__(self, files: CommittedFiles, number: int, facts: dict[str, Any]) -> None:
        self._files, self.number, self.facts = files, number, facts

    def __repr__(self) -> str:
        place = "georegistered" if self.georegistered else "not georegistered"
        return (
            f"<reconstruction {self.number}: {self.images} images, {self.points} points, {place}>"
        )

    @property
    def images(self) -> int:
        """The number of its registered images."""
        return int(self.facts["images"])

    @property
    def points(self) -> int:
        """The number of its 3D points."""
        return int(self.facts["points"])

    @property
    def georegistered(self) -> bool:
        """Whether it was georegistered by GPS."""
        return bool(self.facts["georegistered"])

    @property
    def origin(self) -> tuple[float, float, float]:
        """Latitude, longitude (degrees, WGS84), altitude (metres, of the GPS tags) of its frame."""
        latitude, longitude, altitude = map(float, self.facts["origin"])
        return latitude, longitude, altitude

    @cached_property
    def folder(self) -> Path:
        """A local folder with its files, checked against the ledger, for COLMAP and other readers.

        For a remote atlas it is a copy that is deleted with this object.
        """
        inside = layout.model_folder(self.number)
        paths = [
            file.path
            for _, file in self._files.files(layout.MERGE_LEDGER, layout.MODEL)
            if file.path.startswith(f"{inside}/")
        ]
        if not paths:
            raise DamagedAtlas(f"{self._files.root}/{inside}: the ledger knows no files of it")
        places = [self._files.checked(layout.MERGE_LEDGER, _ENTRY, path) for path in paths]
        if storage.is_local(self._files.root):
            return Path(os.path.dirname(places[0]))
        self._copies = tempfile.TemporaryDirectory(prefix="vladmap-")
        for path in paths:
            data = self._files.data(layout.MERGE_LEDGER, _ENTRY, path)
            Path(self._copies.name, path.rpartition("/")[2]).write_bytes(data)
        return Path(self._copies.name)

    def open(self) -> pycolmap.Reconstruction:
        """The model, as a new pycolmap.Reconstruction. Raises AtlasError without pycolmap."""
        folder = self.folder
        try:
            from vladmap.features.colmap import pycolmap
        except ImportError as error:
            raise AtlasError(f"pycolmap is needed to open {folder}: {error}") from error
        try:
            return pycolmap.Reconstruction(str(folder))
        except (ValueError, RuntimeError) as error:
            raise DamagedAtlas(f"{folder}: COLMAP cannot read it: {error}") from error

    def geographic(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points (..., 3) of its frame as latitude, longitude (degrees), altitude (metres).

        Raises AtlasError if it is not georegistered.
        """
        from vladmap.geodesy.wgs84 import enu_to_geodetic

        if not self.georegistered:
            raise AtlasError(f"{self!r}: GPS did not place it on Earth")
        return enu_to_geodetic(points, self.origin)


class Reconstructions(Sequence[StoredReconstruction]):
    """All models of the map, those with most images first; empty where nothing was mapped."""

    def __init__(self, files: CommittedFiles) -> None:
        self._files = files

    def __repr__(self) -> str:
        return f"{list(self)!r}"

    @cached_property
    def report(self) -> dict[str, Any]:
        """The content of model/merge.json: figures of the models, decisions on pairs of tiles."""
        data = self._files.data(layout.MERGE_LEDGER, _ENTRY, layout.MERGE_REPORT)
        try:
            report: dict[str, Any] = json.loads(data)
            self._check(report)
        except (ValueError, TypeError, KeyError) as error:
            place = f"{self._files.root}/{layout.MERGE_REPORT}"
            raise DamagedAtlas(f"{place}: not the report of a map: {error}") from error
        return report

    @staticmethod
    def _check(report: dict[str, Any]) -> None:
        for facts in report["models"]:
            latitude, longitude, altitude = facts["origin"]
            float(latitude) + float(longitude) + float(altitude)
            int(facts["images"]) + int(facts["points"]) + int(facts["georegistered"])

    def __len__(self) -> int:
        return len(self.report["models"])

    @overload
    def __getitem__(self, number: int) -> StoredReconstruction: ...
    @overload
    def __getitem__(self, number: slice) -> list[StoredReconstruction]: ...
    def __getitem__(self, number: int | slice) -> Any:
        numbers = range(len(self))[number]
        if isinstance(numbers, range):
            return [self._one(each) for each in numbers]
        return self._one(numbers)

    def __iter__(self) -> Iterator[StoredReconstruction]:
        return map(self._one, range(len(self)))

    def _one(self, number: int) -> StoredReconstruction:
        return StoredReconstruction(self._files, number, self.report["models"][number])
