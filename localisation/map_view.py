"""What localisation needs of an atlas: its index, features, cameras, poses and points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vladmap.atlas.atlas import Atlas
from vladmap.atlas.local_features import StoredFeatures
from vladmap.atlas.reconstructions import StoredReconstruction
from vladmap.features.base import LocalFeatures
from vladmap.geodesy.wgs84 import geodetic_to_ecef
from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.camera import Camera
from vladmap.mapping.camera_keys import IMAGE_COLUMNS, camera_keys, initial_camera
from vladmap.mapping.tile_arrays import TileArrays, tile_arrays
from vladmap.retrieval.faiss_index import search

_SHARDS_KEPT = 8


@dataclass(frozen=True)
class MapModel:
    """One COLMAP model of the map as arrays.

    `row` gives each photograph its row among those of `arrays`, `cameras` each camera of the
    collection, by its key, what the map found it to be.
    """

    stored: StoredReconstruction
    arrays: TileArrays
    row: dict[str, int]
    cameras: dict[str, Camera]

    def observations(self, image_id: str) -> tuple[Indices, Indices]:
        """(keypoints of a photograph that show a point, the rows of these points), each (k,)."""
        start, end = np.searchsorted(self.arrays.seen_by, self.row[image_id] + np.array([0, 1]))
        return self.arrays.keypoint[start:end], self.arrays.point[start:end]


@dataclass(frozen=True)
class Photograph:
    """A photograph of the atlas, where its GPS or else the map has it; NaN where neither does."""

    image_id: str
    name: str
    latitude: float
    longitude: float


class MapView:
    """An atlas as localisation sees it. Each part is read when it is first needed, and is kept.

    Raises AtlasError, with the way out, for an atlas that is damaged or lacks what is asked of it.
    """

    def __init__(self, atlas: Atlas, model: str | None = None, features: str | None = None) -> None:
        self.atlas = atlas
        self.index = atlas.index(model, places=True)
        self._asked = features

    @cached_property
    def features(self) -> StoredFeatures | None:
        """The local features of the map; None where the atlas has none."""
        if not self.atlas.feature_kinds:
            return None
        stored = self.atlas.features(self._asked)
        stored.keep = _SHARDS_KEPT
        return stored

    @cached_property
    def models(self) -> list[MapModel]:
        """The models of the map; none where the atlas has no map."""
        stored = self.atlas.reconstructions() if self.atlas.has_map else ()
        return [self._model(each) for each in stored]

    @cached_property
    def _images(self) -> pa.Table:
        columns = [*IMAGE_COLUMNS, "name", "latitude", "longitude", "altitude"]
        return pa.Table.from_pandas(self.atlas.images(columns), preserve_index=False)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {image: row for row, image in enumerate(self._images["image_id"].to_pylist())}

    @cached_property
    def _camera_keys(self) -> list[str]:
        return camera_keys(self._images)

    @cached_property
    def _id_of(self) -> dict[str, str]:
        columns = (self._images[name].to_pylist() for name in ("name", "image_id"))
        return dict(zip(*columns, strict=True))

    @cached_property
    def _positions(self) -> tuple[Array, Array]:
        """Latitude and longitude of the photographs of `_images`, by GPS, else by the map."""
        latitude, longitude = (
            np.asarray(self._images[name].to_numpy(zero_copy_only=False), np.float64).copy()
            for name in ("latitude", "longitude")
        )
        for model in self.models:
            if not model.stored.georegistered:
                continue
            ids = [image for image in model.row if np.isnan(latitude[self._row_of[image]])]
            rows = [self._row_of[image] for image in ids]
            centres = model.arrays.centres[[model.row[image] for image in ids]]
            if ids:
                places = model.stored.geographic(centres)
                latitude[rows], longitude[rows] = places[:, 0], places[:, 1]
        return latitude, longitude

    @cached_property
    def _ecef(self) -> Array:
        """(n, 3) of the rows of the index, on the ellipsoid; NaN without a position."""
        rows = [self._row_of[image] for image in self.index.image_ids.tolist()]
        latitude, longitude = (values[rows] for values in self._positions)
        return geodetic_to_ecef(np.stack([latitude, longitude, np.zeros(len(rows))], axis=1))

    def photograph(self, image_id: str) -> Photograph:
        """What the atlas knows of a photograph."""
        row = self._row_of[image_id]
        latitude, longitude = (float(values[row]) for values in self._positions)
        return Photograph(image_id, self._images["name"][row].as_py(), latitude, longitude)

    def near(self, latitude: float, longitude: float, reach_m: float) -> NDArray[np.int64]:
        """The rows of the index whose photographs may lie within `reach_m`, in a straight line.

        One without a position may lie anywhere.
        """
        here = geodetic_to_ecef(np.array([latitude, longitude, 0.0]))
        away = np.linalg.norm(self._ecef - here, axis=1)
        return np.flatnonzero((away <= reach_m) | np.isnan(away))

    def most_alike(
        self, descriptor: NDArray[np.float32], k: int, among: NDArray[np.int64] | None
    ) -> list[tuple[str, float]]:
        """(image_id, cosine) of the `k` most alike of all, or of the rows `among`, best first."""
        similarity, rows = search(self.index.faiss, descriptor[None], k, among=among)
        found = rows[0] >= 0
        ids = self.index.image_ids[rows[0][found]]
        return list(zip(ids.tolist(), similarity[0][found].tolist(), strict=True))

    def features_of(self, image_id: str) -> LocalFeatures | None:
        """The local features of a photograph of the atlas; None where it has none."""
        if self.features is None or image_id not in self.features:
            return None
        return self.features[image_id]

    def camera(self, key: str) -> Camera | None:
        """The camera of this key, as the largest model with photographs of it has it."""
        return next((each.cameras[key] for each in self.models if key in each.cameras), None)

    def camera_of(self, image_id: str) -> Camera:
        """The camera of a photograph of the atlas: the map's, else by its EXIF."""
        row = self._row_of[image_id]
        known = self.camera(self._camera_keys[row])
        if known is not None:
            return known
        return initial_camera(
            *(self._images[name][row].as_py() for name in ("width", "height", "focal_px"))
        )

    def _model(self, stored: StoredReconstruction) -> MapModel:
        opened, id_of = stored.open(), self._id_of
        names = sorted(opened.image(each).name for each in opened.reg_image_ids())
        row_of = {name: row for row, name in enumerate(names)}
        arrays = tile_arrays(opened, row_of)
        cameras: dict[str, Camera] = {}
        for number in sorted(opened.reg_image_ids()):
            image = opened.image(number)
            key = self._camera_keys[self._row_of[id_of[image.name]]]
            if key not in cameras:
                cameras[key] = Camera.from_colmap(opened.camera(image.camera_id))
        return MapModel(stored, arrays, {id_of[name]: row_of[name] for name in names}, cameras)
