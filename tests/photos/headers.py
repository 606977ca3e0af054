"""Photographs with given headers, for tests."""

from PIL import ExifTags

from tests.photos.bad_photos import (
    encode,
    exif_block,
    texture,
)
from vladmap.photos.decoding.opening import MAX_PIXELS, decoding_errors, open_photo
from vladmap.photos.headers.header import Header, header_of

B = ExifTags.Base

G = ExifTags.GPS


def read_header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """The header alone, as ingest reads it before it proves that the pixels decode."""
    image = open_photo(data, max_pixels=max_pixels)
    if image.format == "PNG":  # its metadata may stand behind the pixels
        with decoding_errors("PNG"):
            image.load()
    return header_of(image)


def header_with(*, base=None, details=None, gps=None, xmp=None, size=(192, 144), kind="JPEG"):
    options = {"exif": exif_block(base=base, details=details, gps=gps)}
    if xmp is not None:
        options["xmp"] = xmp
    return read_header(encode(texture(0, *size), kind, **options))


def packet(properties: str, children: str = "") -> bytes:
    return (
        "<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'>"
        "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
        "<rdf:Description rdf:about='' xmlns:exif='http://ns.adobe.com/exif/1.0/' "
        "xmlns:tiff='http://ns.adobe.com/tiff/1.0/' "
        "xmlns:GPano='http://ns.google.com/photos/1.0/panorama/' "
        "xmlns:drone-dji='http://www.dji.com/drone-dji/1.0/' "
        f"{properties}>{children}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
    ).encode()
