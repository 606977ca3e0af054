"""Which photographs are panoramas (issue 19, 3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.photos.bad_photos import encode, exif_block, texture
from vladmap.photos.decoding.decode import inspect
from vladmap.photos.headers.projection import by_pixels, two_to_one

CASES = Path(__file__).parents[1] / "cases" / "panoramas"
GPANO = "http://ns.google.com/photos/1.0/panorama/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
B = ExifTags.Base


def sphere(width: int = 512, seed: int = 0) -> np.ndarray:
    """(width / 2, width, 3) uint8 of a scene of blobs around the camera, by longitude, latitude."""
    random = np.random.default_rng(seed)
    longitude = (np.arange(width) + 0.5) / width * 2 * np.pi - np.pi
    latitude = np.pi / 2 - (np.arange(width // 2) + 0.5) / (width // 2) * np.pi
    ways = np.stack(
        [
            np.cos(latitude)[:, None] * np.sin(longitude),
            np.cos(latitude)[:, None] * np.cos(longitude),
            np.repeat(np.sin(latitude)[:, None], width, axis=1),
        ],
        axis=-1,
    )
    centres = random.normal(size=(300, 3))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    weights = np.exp(60 * (ways.reshape(-1, 3) @ centres.T - 1)) @ random.normal(size=(300, 3))
    grey = 127 + 60 * weights / weights.std()
    return np.clip(grey, 0, 255).astype(np.uint8).reshape(width // 2, width, 3)


def described(attributes: str = "", elements: str = "", prefix: str = "GPano") -> bytes:
    return (
        f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='{RDF}'>"
        f"<rdf:Description rdf:about='' xmlns:{prefix}='{GPANO}' {attributes}>{elements}"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def projection(data: bytes) -> str:
    return inspect(data)[0].projection


@pytest.mark.parametrize("name", ["p00.jpg", "p01.jpg"])
def test_a_panorama_is_known_with_gpano_and_without(name):
    """Issue 19, 3: `panoramas/`, of which every second has no GPano."""
    header, _ = inspect((CASES / name).read_bytes())
    assert header.projection == "equirectangular"
    assert header.focal_px is None


@pytest.mark.parametrize("name", ["p00.jpg", "p01.jpg"])
def test_a_panorama_is_known_by_its_pixels_alone(name):
    """Issue 19, 3: no EXIF, no XMP; smaller; turned around the vertical, which moves the seam."""
    pixels = np.asarray(Image.open(CASES / name))
    for turn in (0, 300, 777):
        assert projection(encode(np.roll(pixels, turn, axis=1))) == "equirectangular"
    small = Image.open(CASES / name).resize((640, 320))
    assert projection(encode(small, quality=60)) == "equirectangular"


@pytest.mark.parametrize("seed", range(5))
def test_a_sphere_of_any_scene_is_known_by_its_pixels(seed):
    header, _ = inspect(encode(sphere(seed=seed)))
    assert header.projection == "equirectangular"
    assert header.notes == ("panorama_by_pixels",)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [(99, 49), (192, 96), (1024, 512), (1200, 400)])
def test_a_wide_photograph_is_no_panorama_by_its_shape(seed, size):
    """Issue 19, 3: a crop of 2:1, and a rectified one of 3:1, is one lens's picture."""
    assert projection(encode(texture(seed, *size))) == "perspective"


def test_a_wide_photograph_between_black_bars_is_no_panorama():
    """Issue 19, 3: sides that agree because nothing is on them prove nothing."""
    pixels = np.array(texture(0, 1024, 512))
    pixels[:, :60], pixels[:, -60:], pixels[:20], pixels[-20:] = 0, 0, 0, 0
    assert projection(encode(pixels)) == "perspective"
    assert projection(encode(np.zeros((256, 512, 3), np.uint8))) == "perspective"


def test_a_closing_strip_is_no_perspective():
    """Issue 19, 3: a whole turn of which sky and ground are cut off."""
    assert projection(encode(sphere()[60:200])) == "unknown"


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (described("GPano:ProjectionType='equirectangular'"), "equirectangular"),
        (described("g:ProjectionType='Equirectangular'", prefix="g"), "equirectangular"),
        (
            described(elements="<q:ProjectionType> equirectangular</q:ProjectionType>", prefix="q"),
            "equirectangular",
        ),
        (described("GPano:ProjectionType='cylindrical'"), "cylindrical"),
        (described("GPano:ProjectionType='cubemap'"), "unknown"),
        (described("GPano:ProjectionType='rectilinear'"), "perspective"),
        (described("GPano:UsePanoramaViewer='True'"), "perspective"),
        (described("GPano:ProjectionType='equirectangular'").replace(GPANO.encode(), b"urn:other"),
         "perspective"),
    ],
)  # fmt: skip
def test_gpano_is_believed_in_every_spelling(packet, expected):
    """Issue 19, 3: attribute or element, under any prefix of the namespace; any shape of picture,
    as a part of a panorama has any."""
    assert projection(encode(texture(0), xmp=packet)) == expected


@pytest.mark.parametrize(
    ("make", "model", "panorama"),
    [
        ("RICOH", "RICOH THETA S", True),
        ("Arashi Vision", "Insta360 ONE X2", True),
        ("GoPro", "GoPro Max", True),
        ("Samsung", "SM-R210", True),
        ("Garmin", "VIRB 360", True),
        ("LGE", "LG-R105", True),
        ("KODAK", "PIXPRO SP360 4K", True),
        ("RICOH", "GR III", False),
        ("GoPro", "HERO11 Black", False),
        ("Apple", "iPhone 12 Pro Max", False),
        ("motorola", "one fusion", False),
    ],
)
def test_an_all_round_camera_is_known_by_its_name(make, model, panorama):
    """Issue 19, 3: poles are retouched, so that the pixels prove nothing."""
    pixels = sphere()
    pixels[:4] = pixels[-4:] = pixels[128]
    exif = exif_block(base={B.Make: make, B.Model: model})
    assert projection(encode(pixels, exif=exif)) == (
        "equirectangular" if panorama else "perspective"
    )
    assert projection(encode(texture(0), exif=exif)) == "perspective"


def test_two_circles_of_an_all_round_camera_are_no_sphere():
    """Issue 19, 3: what the camera has not stitched is neither mapped nor called a sphere."""
    pixels = np.array(texture(0, 512, 256))
    y, x = np.mgrid[:256, :512]
    pixels[np.hypot(x % 256 - 127.5, y - 127.5) > 128] = 0
    exif = exif_block(base={B.Make: "Insta360", B.Model: "Insta360 X3"})
    assert projection(encode(pixels, exif=exif)) == "unknown"


def test_a_swept_picture_of_apple_is_a_cylinder():
    exif = exif_block(details={0xA401: 6, B.FocalLengthIn35mmFilm: 28})
    header, _ = inspect(encode(texture(0, 1200, 300), exif=exif))
    assert (header.projection, header.focal_px) == ("cylindrical", None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Equirectangular (2)", "equirectangular"), ("Rectilinear (0)", "perspective"),
     ("Cylindrical (1)", "cylindrical"), ("Full-Frame Fisheye (3)", "perspective"),
     ("Stereographic (4)", "unknown")],
)  # fmt: skip
def test_hugin_s_comment_is_believed(name, expected):
    """Issue 19, 3: stitched panoramas that have no GPano."""
    comment = b"ASCII\0\0\0Projection: " + name.encode() + b"\nFOV: 360 x 180\nEv: 12.0"
    assert projection(encode(texture(0), exif=exif_block(details={0x9286: comment}))) == expected


def test_a_turned_panorama_is_known_upright():
    exif = exif_block(base={B.Orientation: 6})
    assert projection(encode(np.rot90(sphere(), 1), exif=exif)) == "equirectangular"


def test_two_to_one_allows_for_rounding_alone():
    assert two_to_one(4000, 2000)
    assert two_to_one(1001, 500)
    assert not two_to_one(1920, 1080)
    assert not two_to_one(1000, 480)


def test_tiny_pictures_prove_nothing():
    assert by_pixels(np.zeros((1, 2), np.uint8)) is None
    assert by_pixels(np.zeros((20, 2), np.uint8)) is None
