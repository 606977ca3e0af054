"""Upright copies of photographs for programs that ignore EXIF orientation or read few formats."""

from __future__ import annotations

import io
from collections.abc import Container
from pathlib import PurePosixPath

from PIL import ExifTags, Image

from vladmap.photos.decoding.decode import Size, decode_rgb
from vladmap.photos.decoding.opening import MAX_PIXELS, decoding_errors, open_photo
from vladmap.photos.headers.exif import read_orientation
from vladmap.photos.names import JPEG_QUALITY

_MAX_EXIF_BYTES = 65_000  # a segment of a JPEG holds no more
_PLAIN_FORMATS = ("JPEG", "PNG", "BMP")
_WRITTEN_AS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


def upright_file(
    data: bytes, name: str, *, max_pixels: int = MAX_PIXELS
) -> tuple[str, bytes | None, Size]:
    """(name, bytes, size in pixels) of a file in which any program sees the pixels as vladmap does.

    The bytes are None where the photograph itself is such a file: a JPEG, PNG or BMP of 8 bits a
    channel whose pixels are stored upright. Otherwise they are a PNG where the name ends so, else a
    JPEG of quality JPEG_QUALITY without chroma subsampling; both are upright and have the
    photograph's EXIF except its orientation. `.jpg` is added to a name with another ending.

    Raises what `photos.decoding.decode.decode_rgb` raises.
    """
    image = open_photo(data, max_pixels=max_pixels)
    kind = image.format or "image"
    with decoding_errors(kind):
        if kind == "PNG":
            image.load()  # a PNG may keep its metadata behind the pixels
        orientation = read_orientation(image)
    if kind in _PLAIN_FORMATS and image.mode in ("L", "RGB") and orientation == 1:
        return name, None, image.size
    written = _WRITTEN_AS.get(PurePosixPath(name).suffix.lower())
    picture = Image.fromarray(decode_rgb(data, max_pixels=max_pixels))
    stream = io.BytesIO()
    if written == "PNG":
        picture.save(stream, "PNG", exif=_exif(image))
    else:
        picture.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0, exif=_exif(image))
    return (name if written else f"{name}.jpg"), stream.getvalue(), picture.size


def plain_name(
    name: str,
    image_id: str,
    taken: Container[str] = (),
    *,
    spaces: bool = True,
    commas: bool = True,
) -> str:
    """The name of a photograph in a folder: its own if it stays inside, else one made from its id.

    Without `spaces` or `commas`, these become underscores. A new name is none of the names `taken`.
    """
    parts = name.split("/")
    inside = all(part not in ("", ".", "..") for part in parts)
    if inside and name.isprintable() and "\\" not in name:
        made = name if spaces else "_".join(name.split())
        made = made if commas else made.replace(",", "_")
        return made if made == name or made not in taken else f"{image_id}/{made}"
    ending = PurePosixPath(parts[-1]).suffix
    made = f"outside/{image_id}{ending if ending[1:].isalnum() else ''}"
    while made in taken:
        made = f"{made}.again"
    return made


def _exif(image: Image.Image) -> bytes:
    """The photograph's EXIF without its orientation; empty where it cannot be written again."""
    try:
        exif = image.getexif()
        exif.pop(ExifTags.Base.Orientation, None)
        block = exif.tobytes() if len(exif) else b""
    except Exception:  # Pillow parses hostile blocks with whatever its parsing happens to raise
        return b""
    return block if len(block) <= _MAX_EXIF_BYTES else b""
