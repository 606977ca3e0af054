"""Reading a COLMAP model of an atlas, wherever the atlas lies."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vladmap.atlas import listings, storage
from vladmap.atlas.store import AtlasStore
from vladmap.features.colmap import pycolmap
from vladmap.mapping.export import read_reconstruction


def read_model(atlas: AtlasStore, model: int) -> pycolmap.Reconstruction:
    """A model of the map by its number. Raises UserError where it cannot be read."""
    with tempfile.TemporaryDirectory(prefix="vladmap-export-") as folder:
        for path in listings.list_files(atlas.path("model", str(model)), ".bin"):
            Path(folder, path.rpartition("/")[2]).write_bytes(storage.read_bytes(path))
        return read_reconstruction(Path(folder))
