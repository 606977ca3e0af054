"""The properties of an XMP packet (ISO 16684-1): those of the photograph itself, and no others.

A packet is RDF. Its rdf:RDF contains rdf:Description elements, and a property directly under one of
them describes the photograph. Deeper properties describe something else: the place that is shown
(IPTC's LocationShown), a photograph that this one was made from, or an earlier step of its history.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

MAX_BYTES = 4_000_000
"""Above this a packet carries pictures, not facts, and is not parsed."""

Properties = dict[tuple[str, str], str]
"""Simple properties by (namespace, name); a namespace in lower case, without its last / or #."""

EXTENDED_GUID = ("http://ns.adobe.com/xmp/note", "HasExtendedXMP")

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns"
_XML = "http://www.w3.org/xml/1998/namespace"

# rdf:RDF, a description, its property, a description or value in it, a value in that.
_DEPTH = 5
_MAX_ELEMENTS = 200_000

_JPEG_PACKET = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"


class UnreadableError(Exception):
    """Not XMP that can be read; the text is the note to leave."""


class _Forbidden(Exception):
    """The packet declares a document type: the door to entity expansion."""


def properties(packet: bytes | str) -> Properties:
    """The simple properties at the top of a packet, written as attributes or as elements.

    Of a property that is written more than once the first counts. Values with qualifiers count by
    their rdf:value; arrays, alternatives and structures are left out. Bytes are UTF-8, UTF-16 or
    UTF-32, with or without a byte order mark. Raises UnreadableError: `xmp_too_large`, or
    `xmp_unreadable` for what is not well-formed, and for any packet with a DTD: XMP has no use for
    one, and entity declarations ("billion laughs") need one.
    """
    if len(packet) > MAX_BYTES:
        raise UnreadableError("xmp_too_large")
    try:
        descriptions = _descriptions(_as_text(packet))
    except (_Forbidden, expat.ExpatError, ValueError) as error:
        raise UnreadableError("xmp_unreadable") from error
    values: Properties = {}
    first_subject = ""
    for description in descriptions:
        # All descriptions of a packet should have one subject: those of another subject, or of a
        # named part, are skipped.
        attributes = {_key(name): text for name, text in description.items()}
        subject = attributes.get((_RDF, "about"), attributes.get(("", "about"), ""))
        if subject.startswith("#") or (_RDF, "nodeID") in attributes or (_RDF, "ID") in attributes:
            continue
        first_subject = first_subject or subject
        if subject not in ("", first_subject):
            continue
        for name, text in _simple(description):
            if text.strip():
                values.setdefault(name, text.strip())
    return values


def _descriptions(text: str) -> list[Element]:
    """The children of the first rdf:RDF, with what is needed of their own."""
    builder, finished = TreeBuilder(), False
    depth = elements = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements
        if finished or (depth == 0 and _key(name) != (_RDF, "RDF")):
            return
        depth, elements = depth + 1, elements + 1
        if elements > _MAX_ELEMENTS:
            raise _Forbidden
        if depth <= _DEPTH:
            builder.start(name, attributes)

    def characters(data: str) -> None:
        if 0 < depth <= _DEPTH:
            builder.data(data)

    def end(name: str) -> None:
        nonlocal depth, finished
        if depth == 0:
            return
        if depth <= _DEPTH:
            builder.end(name)
        depth -= 1
        finished = finished or depth == 0

    parser = expat.ParserCreate("utf-8", namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.CharacterDataHandler = characters
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = _forbid
    parser.EntityDeclHandler = _forbid
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except expat.ExpatError:
        # Some writers leave invalid text behind the end of the RDF, which does no harm.
        if not finished:
            raise
    if not finished:
        raise ValueError("no rdf:RDF")
    return list(builder.close())


def _simple(description: Element) -> Iterator[tuple[tuple[str, str], str]]:
    for name, text in description.items():
        key = _key(name)
        # Attributes without a namespace, `about` in old packets, are RDF's own.
        if key[0] not in ("", _RDF, _XML):
            yield key, text
    for child in description:
        if (value := _value(child)) is not None:
            yield _key(child.tag), value


def _value(element: Element) -> str | None:
    """The text of a simple property, or of the rdf:value of one with qualifiers; else None."""
    attributes = {_key(name): text for name, text in element.items()}
    if (_RDF, "value") in attributes:
        return attributes[_RDF, "value"]
    if len(element) == 0:
        plain = all(namespace in ("", _RDF, _XML) for namespace, _ in attributes)
        return element.text if plain else None
    holder: Element = element
    if attributes.get((_RDF, "parseType")) != "Resource":
        if len(element) > 1 or _key(element[0].tag) != (_RDF, "Description"):
            return None
        holder = element[0]
    within = {_key(name): text for name, text in holder.items()}
    if (_RDF, "value") in within:
        return within[_RDF, "value"]
    return next((each.text for each in holder if _key(each.tag) == (_RDF, "value")), None)


def _key(name: str) -> tuple[str, str]:
    namespace, _, local = name.rpartition(" ")
    return namespace.rstrip("/#").lower(), local


def _forbid(*_: object) -> None:
    raise _Forbidden


def _as_text(packet: bytes | str) -> str:
    """The packet from its first tag to its last; writers pad it with blanks and NULs."""
    text = packet if isinstance(packet, str) else _decoded(bytes(packet))
    return text[max(text.find("<"), 0) : text.rfind(">") + 1]


def _decoded(raw: bytes) -> str:
    """Bytes as text: the NULs behind the first tag's bracket, and its place, tell the encoding."""
    place = raw.find(b"<")
    behind = raw[place + 1 : place + 4]
    encoding = "utf-8"
    if place >= 0 and behind == b"\0\0\0":
        encoding = "utf-32-be" if place % 4 == 3 else "utf-32-le"
    elif place >= 0 and behind[:1] == b"\0":
        encoding = "utf-16-be" if place % 2 else "utf-16-le"
    return raw.decode(encoding, "replace")


def jpeg_packets(segments: Iterable[tuple[str, bytes]]) -> tuple[list[bytes], dict[str, bytes]]:
    """The packets of a JPEG's application segments, and its extended packets by their GUID.

    A packet of more than 64 KB is cut into segments that each name the whole's GUID, its length and
    their own place in it (XMP specification part 3, 1.1.3.1). A whole with a gap is left out.
    """
    packets: list[bytes] = []
    pieces: dict[str, dict[int, bytes]] = {}
    lengths: dict[str, int] = {}
    for marker, content in segments:
        if marker != "APP1":
            continue
        if content.startswith(_JPEG_PACKET):
            packets.append(content[len(_JPEG_PACKET) :])
        elif content.startswith(_JPEG_EXTENSION) and len(content) >= len(_JPEG_EXTENSION) + 40:
            body = content[len(_JPEG_EXTENSION) :]
            guid = body[:32].decode("latin-1").upper()
            lengths[guid] = int.from_bytes(body[32:36], "big")
            pieces.setdefault(guid, {})[int.from_bytes(body[36:40], "big")] = body[40:]
    extended = {}
    for guid, parts in pieces.items():
        whole = bytearray()
        for place in sorted(parts):
            if place != len(whole):
                break
            whole += parts[place]
        if len(whole) == lengths[guid]:
            extended[guid] = bytes(whole)
    return packets, extended


def raw_profile(text: object) -> bytes | None:
    """The packet in ImageMagick's text chunk of a PNG: a name, a length, hexadecimal digits."""
    match = re.match(r"\s*xmp\s+\d+\s+([0-9A-Fa-f\s]+)$", text) if isinstance(text, str) else None
    try:
        return None if match is None else bytes.fromhex(match[1])
    except ValueError:
        return None
