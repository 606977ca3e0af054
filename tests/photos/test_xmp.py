"""Positions in XMP, in the dialects of its writers (issue 19, 6)."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from tests.photos.bad_photos import encode, exif_block, gps_tags, png, texture
from tests.photos.headers import read_header
from vladmap.photos.headers.coordinates import read_position
from vladmap.photos.headers.xmp import read_xmp
from vladmap.photos.headers.xmp_packet import MAX_BYTES, jpeg_packets

CASES = Path(__file__).parents[1] / "cases" / "xmp"
RIGHT = json.loads((CASES / "right.json").read_text())

NAMESPACES = (
    "xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#' "
    "xmlns:exif='http://ns.adobe.com/exif/1.0/' "
    "xmlns:xmpNote='http://ns.adobe.com/xmp/note/' "
    "xmlns:xmpMM='http://ns.adobe.com/xap/1.0/mm/' "
    "xmlns:ext='http://iptc.org/std/Iptc4xmpExt/2008-02-29/'"
)
CAMERA = (
    "<exif:GPSLatitude>41,54.13N</exif:GPSLatitude><exif:GPSLongitude>12,28.02E</exif:GPSLongitude>"
)
SUBJECT = CAMERA.replace("41,54.13N", "1,1N").replace("12,28.02E", "2,2E")
AT_CAMERA = (41 + 54.13 / 60, 12 + 28.02 / 60)


def rdf(*descriptions: str) -> str:
    inside = f"<rdf:RDF {NAMESPACES}>{''.join(descriptions)}</rdf:RDF>"
    return f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{inside}</x:xmpmeta>"


def description(elements: str = "", attributes: str = "rdf:about=''") -> str:
    return f"<rdf:Description {attributes}>{elements}</rdf:Description>"


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_the_position_of_a_case_is_right(name):
    """Issue 19, 6: `xmp/`."""
    header = read_header((CASES / name).read_bytes())
    if RIGHT[name] is None:
        assert (header.latitude, header.longitude) == (None, None)
        # What is shown is no position of the photograph; a contradiction is one that is no use.
        assert header.notes == (() if name == "subject_only.jpg" else ("position_invalid",))
    else:
        assert (header.latitude, header.longitude) == pytest.approx(tuple(RIGHT[name]), abs=1e-9)


@pytest.mark.parametrize(
    ("latitude", "longitude", "latitude_ref", "longitude_ref", "expected"),
    [
        ("38.7223", "9.1393", "N", "W", (38.7223, -9.1393)),
        ("38.7223", "9.1393", "North", "West longitude", (38.7223, -9.1393)),
        ("38.7223", "-9.1393", "N", "W", (38.7223, -9.1393)),
        ("38.7223N", "9.1393W", None, None, (38.7223, -9.1393)),
        ("+38.7223", "-9.1393", None, None, (38.7223, -9.1393)),
        ("38,43,30", "9,8,15", "N", "W", (38.725, -9.1375)),
        ("38/1,43/1,3000/100", "9/1 8/1 1500/100", "N", "W", (38.725, -9.1375)),
        ("38,43.5N", "9,8.25W", "N", "W", (38.725, -9.1375)),
        ("38 deg 43' 30.00\" N", "9\u00b0 8\u2032 15\u2033 W", None, None, (38.725, -9.1375)),
        ("38,7223", "9,1393", "N", "W", (38.7223, -9.1393)),
        ("38,43,5000N", "9,8,2500W", None, None, (38.725, -9.1375)),
        ("38,43,30,0N", "9,8,15,0W", None, None, (38.725, -9.1375)),
    ],
)
def test_a_position_is_read_in_every_writing(
    latitude, longitude, latitude_ref, longitude_ref, expected
):
    """Issue 19, 6: signs, letters, references, minutes, seconds, decimal commas."""
    assert read_position(latitude, longitude, latitude_ref, longitude_ref) == pytest.approx(
        expected
    )
    references = "".join(
        f"<exif:GPS{axis}Ref>{ref}</exif:GPS{axis}Ref>"
        for axis, ref in (("Latitude", latitude_ref), ("Longitude", longitude_ref))
        if ref
    )
    packet = rdf(
        description(
            f"<exif:GPSLongitude>{longitude}</exif:GPSLongitude>{references}"
            f"<exif:GPSLatitude>{latitude}</exif:GPSLatitude>"
        )
    )
    assert read_xmp(packet).position == pytest.approx(expected)


@pytest.mark.parametrize(
    ("latitude", "longitude", "latitude_ref", "longitude_ref"),
    [
        ("33,52.5S", "151,12.6E", "N", None),
        ("33,52.5S", "151,12.6E", "S", "W"),
        ("33.875", "-151.21", "N", "E"),
        ("+33.875", "151.21", "S", "E"),
        ("-33.875N", "151.21E", None, None),
        ("33.875", "151.21", "S", None),
        ("33,52.5", "151,12.6", None, None),
        ("33.875", "151.21", "E", "N"),
        ("33.875", "151.21", "?", "E"),
        ("33,52.5S", None, "S", "E"),
        ("", "", None, None),
        ("1," * 50_000, " " * 100_000 + "1N", None, "E"),
    ],
)
def test_a_position_that_is_not_certain_is_none(latitude, longitude, latitude_ref, longitude_ref):
    """Issue 19, 6: letters, signs and references that disagree, or a side that is not told."""
    assert read_position(latitude, longitude, latitude_ref, longitude_ref) is None


@pytest.mark.parametrize(
    "nested",
    [
        "<ext:LocationShown><rdf:Bag><rdf:li rdf:parseType='Resource'>{0}</rdf:li></rdf:Bag>"
        "</ext:LocationShown>",
        "<ext:LocationShown><rdf:Seq><rdf:li><rdf:Description>{0}</rdf:Description></rdf:li>"
        "</rdf:Seq></ext:LocationShown>",
        "<ext:LocationShown><rdf:Bag><rdf:li exif:GPSLatitude='1,1N' exif:GPSLongitude='2,2E'/>"
        "</rdf:Bag></ext:LocationShown>",
        "<ext:LocationShown rdf:parseType='Resource'>{0}</ext:LocationShown>",
        "<xmpMM:DerivedFrom exif:GPSLatitude='1,1N' exif:GPSLongitude='2,2E'/>",
        "<xmpMM:Ingredients><rdf:Bag><rdf:li><rdf:RDF><rdf:Description>{0}</rdf:Description>"
        "</rdf:RDF></rdf:li></rdf:Bag></xmpMM:Ingredients>",
    ],
)
def test_what_lies_deeper_is_not_the_photograph_s(nested):
    """Issue 19, 6: whatever it is called, before the camera's position, behind it, or alone."""
    subject = nested.format(SUBJECT)
    for packet in (rdf(description(subject + CAMERA)), rdf(description(CAMERA + subject)),
                   rdf(description(subject), description(CAMERA))):  # fmt: skip
        assert read_xmp(packet).position == pytest.approx(AT_CAMERA)
    alone = read_xmp(rdf(description(subject)))
    assert (alone.position, alone.position_invalid) == (None, False)


def test_a_description_of_something_else_is_not_the_photograph_s():
    """Issue 19, 6."""
    for other in ("rdf:nodeID='place'", "rdf:about='#place'", "rdf:ID='place'"):
        assert read_xmp(rdf(description(SUBJECT, other), description(CAMERA))).position == (
            pytest.approx(AT_CAMERA)
        )


@pytest.mark.parametrize(
    "packet",
    [
        rdf(description("", "exif:GPSLatitude='41,54.13N' exif:GPSLongitude='12,28.02E'")),
        rdf(
            description("", "rdf:about='uuid:1' exif:GPSLatitude='41,54.13N'"),
            description("<exif:GPSLongitude>12,28.02E</exif:GPSLongitude>", "rdf:about='uuid:1'"),
        ),
        rdf(description(CAMERA)).replace("exif:", "q7:").replace("xmlns:exif", "xmlns:q7"),
        rdf(description(CAMERA)).replace("rdf:", "r:").replace("xmlns:rdf", "xmlns:r"),
        rdf(description(CAMERA)).replace("exif/1.0/'", "exif/1.0'"),
        rdf(description(CAMERA)).partition(">")[2].removesuffix("</x:xmpmeta>"),
        rdf(
            description(
                "<exif:GPSLatitude rdf:parseType='Resource'><rdf:value>41,54.13N</rdf:value>"
                "<xmpNote:by>me</xmpNote:by></exif:GPSLatitude><exif:GPSLongitude>"
                "<rdf:Description rdf:value='12,28.02E'/></exif:GPSLongitude>"
            )
        ),
        rdf(description(CAMERA)) + "\0\0 behind it <another>",
        "\ufeff<?xpacket begin='\ufeff' id='W5M0'?>"
        + rdf(description(CAMERA)) + "<?xpacket end='w'?>",
        "<?xml version='1.0' encoding='utf-16'?>" + rdf(description(CAMERA)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_every_writing_of_a_packet_is_read(packet, encoding):
    """Issue 19, 6: attributes, elements, prefixes, qualifiers, encodings, junk behind it."""
    assert read_xmp(packet.encode(encoding)).position == pytest.approx(AT_CAMERA)


def segment(content: bytes) -> bytes:
    return b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content


def jpeg_with(*contents: bytes) -> bytes:
    data = encode(texture(0))
    return data[:2] + b"".join(map(segment, contents)) + data[2:]


XAP = b"http://ns.adobe.com/xap/1.0/\0"
EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
GUID = "0123456789ABCDEF0123456789ABCDEF"


def pieces(whole: bytes, *cuts: int, guid: str = GUID) -> list[bytes]:
    bounds = [0, *cuts, len(whole)]
    return [
        EXTENSION + guid.encode() + len(whole).to_bytes(4, "big") + start.to_bytes(4, "big")
        + whole[start:end]
        for start, end in itertools.pairwise(bounds)
    ]  # fmt: skip


def test_a_packet_that_is_continued_elsewhere_is_read_whole():
    """Issue 19, 6: extended XMP, its pieces in any order; of another GUID or with a gap, none."""
    main = XAP + rdf(description("", f"xmpNote:HasExtendedXMP='{GUID}'")).encode()
    parts = pieces(rdf(description(CAMERA)).encode(), 100, 300)
    found = read_header(jpeg_with(parts[2], main, parts[0], parts[1]))
    assert (found.latitude, found.longitude) == pytest.approx(AT_CAMERA)
    assert read_header(jpeg_with(main, parts[0], parts[2])).latitude is None
    other = pieces(rdf(description(CAMERA)).encode(), guid="F" * 32)
    assert read_header(jpeg_with(main, *other)).latitude is None
    hostile = EXTENSION + GUID.encode() + b"\xff" * 8 + b"x"
    assert jpeg_packets([("APP1", hostile), ("APP1", EXTENSION)]) == ([], {})


def test_of_several_packets_the_first_that_tells_counts():
    """Issue 19, 6: a broken one, one without a position, the camera's, the subject's."""
    packets = ["<x", rdf(description()), rdf(description(CAMERA)), rdf(description(SUBJECT))]
    found = read_header(jpeg_with(*(XAP + packet.encode() for packet in packets)))
    assert (found.latitude, found.longitude) == pytest.approx(AT_CAMERA)
    assert found.notes == ("xmp_unreadable",)


def test_imagemagick_s_packet_in_a_png_is_read():
    """Issue 19, 6: hexadecimal digits in a text chunk."""
    packet = rdf(description(CAMERA)).encode()
    profile = b"tEXtRaw profile type xmp\0" + f"\nxmp\n    {len(packet)}\n{packet.hex()}\n".encode()
    rows = b"".join(b"\0" + bytes(3 * 32) for _ in range(32))
    found = read_header(png(32, 32, 8, 2, rows, profile))
    assert (found.latitude, found.longitude) == pytest.approx(AT_CAMERA)


def test_heights_and_headings_with_decimal_commas_and_words():
    """Issue 19, 6: of the dialects."""
    facts = read_xmp(
        rdf(
            description(
                "<exif:GPSAltitude>12,5</exif:GPSAltitude><exif:GPSAltitudeRef>1</exif:GPSAltitudeRef>"
                "<exif:GPSImgDirection>361,5</exif:GPSImgDirection>"
                "<exif:GPSImgDirectionRef>Magnetic direction</exif:GPSImgDirectionRef>"
            )
        )
    )
    assert facts.altitude == -12.5
    assert (facts.heading_deg, facts.magnetic_heading_deg) == (None, 1.5)


def test_a_position_on_tokyo_s_datum_is_none_as_in_exif():
    facts = read_xmp(rdf(description(CAMERA + "<exif:GPSMapDatum>TOKYO</exif:GPSMapDatum>")))
    assert (facts.position, facts.notes) == (None, ("position_datum_tokyo",))


def test_exif_goes_before_xmp():
    data = encode(
        texture(0),
        exif=exif_block(gps=gps_tags(55.5, -13.25)),
        xmp=rdf(description(CAMERA)).encode(),
    )
    assert (read_header(data).latitude, read_header(data).longitude) == (55.5, -13.25)


@pytest.mark.parametrize(
    "hostile",
    [
        f"<rdf:RDF {NAMESPACES}>" + "<rdf:Description>" * 200_000,
        f"<rdf:RDF {NAMESPACES}>" + "<rdf:Description/>" * 210_000 + "</rdf:RDF>",
        "<!DOCTYPE a [<!ENTITY b 'c'>]>" + rdf(description(CAMERA)),
        rdf(description(CAMERA)).replace("41,54.13N", "&b;"),
        rdf(description(CAMERA)).replace("rdf:RDF", "rdf:Rdf"),
        "<a>",
        "no tags at all",
    ],
)
def test_hostile_packets_cost_a_note(hostile):
    assert read_xmp(hostile).notes == ("xmp_unreadable",)
    assert read_xmp(b"<a>" + b" " * MAX_BYTES).notes == ("xmp_too_large",)
