"""Photographs as programs that read pixels as they are stored must have them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.photos.bad_photos import exif_block, gps_tags, texture
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.upright import plain_name, upright_file

PIXELS = texture(3, 96, 64)


def encoded(kind: str, orientation: int = 1, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    exif = exif_block(
        base={ExifTags.Base.Orientation: orientation, ExifTags.Base.Make: "Acme"},
        details={ExifTags.Base.FocalLength: 4.25},
        gps=gps_tags(48.0, 16.0),
    )
    if kind != "BMP":
        options["exif"] = exif
    Image.fromarray(PIXELS).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def stored(data: bytes) -> np.ndarray:
    """What a program sees that knows nothing of orientations."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize(("kind", "name"), [("JPEG", "a.jpg"), ("PNG", "a.png")])
def test_a_turned_photograph_is_written_upright(kind: str, name: str, orientation: int) -> None:
    """Issue 19, 4: orientations 2 to 8, mirrored ones too, come out as vladmap sees them."""
    data = encoded(kind, orientation)
    made, copy, size = upright_file(data, name)
    assert made == name
    assert copy is not None
    wanted = decode_rgb(data)
    assert size == (wanted.shape[1], wanted.shape[0])
    assert size == ((64, 96) if orientation >= 5 else (96, 64))
    difference = np.abs(stored(copy).astype(int) - wanted)
    assert difference.mean() < 1.5
    if kind == "PNG":
        assert difference.max() == 0
    np.testing.assert_array_equal(stored(copy), decode_rgb(copy), "no orientation is left in it")


def test_the_copy_keeps_the_facts_of_the_photograph() -> None:
    _, copy, _ = upright_file(encoded("JPEG", 6), "a.jpg")
    assert copy is not None
    exif = Image.open(io.BytesIO(copy)).getexif()
    assert exif[ExifTags.Base.Make] == "Acme"
    assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLength] == 4.25
    assert ExifTags.GPS.GPSLatitude in exif.get_ifd(ExifTags.IFD.GPSInfo)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_is_stored_upright_needs_no_copy(kind: str, mode: str) -> None:
    assert upright_file(encoded(kind, mode=mode), "x") == ("x", None, (96, 64))


@pytest.mark.parametrize(
    ("kind", "mode", "name", "made"),
    [
        ("WEBP", "RGB", "a.webp", "a.webp.jpg"),
        ("TIFF", "RGB", "a.tif", "a.tif.jpg"),
        ("PNG", "RGBA", "a.PNG", "a.PNG"),
        ("PNG", "I;16", "a.png", "a.png"),
        ("JPEG", "CMYK", "a.JPG", "a.JPG"),
    ],
)
def test_formats_that_colmap_does_not_read_become_ones_that_it_does(
    kind: str, mode: str, name: str, made: str
) -> None:
    data = encoded(kind, mode=mode) if mode != "I;16" else sixteen_bits()
    found, copy, size = upright_file(data, name)
    assert (found, size) == (made, (96, 64))
    assert copy is not None
    assert np.abs(stored(copy).astype(int) - decode_rgb(data)).mean() < 1.5
    assert Image.open(io.BytesIO(copy)).format == (
        "PNG" if made.lower().endswith("png") else "JPEG"
    )


def sixteen_bits() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("name", ["a.jpg", "b c/é.jpg", "12:00:01.jpg", "..a/b..jpg", "-x"])
def test_a_name_that_stays_inside_stays_as_it_is(name: str) -> None:
    assert plain_name(name, "id") == name


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("/etc/passwd", "outside/id"),
        ("../../up.jpg", "outside/id.jpg"),
        ("a/../../b.png", "outside/id.png"),
        ("gs://bucket/c.jpeg", "outside/id.jpeg"),
        ("a//b.jpg", "outside/id.jpg"),
        ("./a.jpg", "outside/id.jpg"),
        ("..", "outside/id"),
        ("", "outside/id"),
        ("a\\..\\b.jpg", "outside/id.jpg"),
        ("new\nline.jpg", "outside/id.jpg"),
        ("nul\0.jpg", "outside/id.jpg"),
        ("x/.", "outside/id"),
    ],
)
def test_a_name_that_leads_elsewhere_is_replaced(name: str, made: str) -> None:
    """Issue 19, 4 and 16: names come from an atlas, which may be anyone's."""
    assert plain_name(name, "id") == made
    assert plain_name(name, "id", {made}) == f"{made}.again"


def test_spaces_can_be_replaced_without_meeting_another_name() -> None:
    assert plain_name("b c/a  d.jpg", "id", spaces=False) == "b_c/a_d.jpg"
    assert plain_name("a b.jpg", "id", {"a_b.jpg"}, spaces=False) == "id/a_b.jpg"
