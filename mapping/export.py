"""Writing a model for COLMAP and tools that read its models: its images have the names of the files
exported beside it, and their sizes agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vladmap.features.colmap import pycolmap
from vladmap.schemas.rejects import UserError

Size = tuple[int, int]


def read_reconstruction(folder: Path) -> pycolmap.Reconstruction:
    """Read COLMAP's binary files. Raises UserError for other files."""
    try:
        return pycolmap.Reconstruction(str(folder))
    except Exception as error:  # COLMAP's checks come as several types
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{folder} cannot be read as a COLMAP model: {first}") from error


def image_sizes(model: pycolmap.Reconstruction) -> dict[str, Size]:
    """(width, height) in pixels of each image's camera by name, for registered and other images."""
    cameras = {number: (camera.width, camera.height) for number, camera in model.cameras.items()}
    return {
        image.name: cameras[image.camera_id]
        for _, image in sorted(model.images.items())
    }  # fmt: skip


def rename_images(model: pycolmap.Reconstruction, names: Mapping[str, str]) -> None:
    """Give the images of a model their names by `names`; others keep theirs."""
    for number in sorted(model.images):
        image = model.image(number)
        image.name = names.get(image.name, image.name)


def write_reconstruction(
    model: pycolmap.Reconstruction, folder: Path, names: Mapping[str, str], *, text: bool = False
) -> None:
    """Write a model with the images called by `names`, as binary files, or as text."""
    rename_images(model, names)
    folder.mkdir(parents=True, exist_ok=True)
    if text:
        model.write_text(str(folder))
    else:
        model.write_binary(str(folder))
