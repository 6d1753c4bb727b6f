"""XMP of a result (ISO 16684-1): an upload's packet parsed and written again, and the properties that say how the
result was made (IPTC Photo Metadata 2025.1).

A packet with a document type, and so with entities, is refused: nothing can expand. Left out are properties that
describe what no result holds: gain map, depth map, video, preview, panorama, further XMP, C2PA manifest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from preprocessing.metadata.xml_tree import Name, Node, XmlError, parse_xml, write_xml

# A JPEG segment holds 65,502 bytes of XMP; the rest is for the properties that are added.
MAX_KEPT_XMP_BYTES = 60_000
_MAX_ADDED_BYTES = 5_000

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_XMP, _IPTC = "http://ns.adobe.com/xap/1.0/", "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_META = "adobe:ns:meta/"
_PREFIXES = {_RDF: "rdf", _META: "x", _TIFF: "tiff", _EXIF: "exif", _XMP: "xmp", _IPTC: "Iptc4xmpExt"}
_LEFT_OUT_NAMESPACES = (
    "http://ns.adobe.com/hdr-gain-map/",
    "http://ns.apple.com/HDRGainMap/",
    "http://ns.apple.com/pixeldatainfo/",
    "http://ns.google.com/photos/",
    "http://ns.adobe.com/xmp/note/",
)
_LEFT_OUT = {(_XMP, "Thumbnails"), ("http://purl.org/dc/terms/", "provenance")}

# IPTC's terms for images that a trained model made, in whole or in part.
_SOURCE_TYPE = re.compile(
    rb"/digitalsourcetype/(trainedAlgorithmicMedia|compositeWithTrainedAlgorithmicMedia|compositeSynthetic)\b"
)
_SOURCE_TYPE_URL = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@dataclass(frozen=True)
class Origin:
    """How a result was made, for its metadata."""

    source_type: str
    """A term of IPTC's vocabulary Digital Source Type, such as algorithmicallyEnhanced."""
    software: str
    """Name and version of the software, such as Serverless SuperRes 0.1.0."""
    variant: str
    """Name of the variant."""
    invents_texture: bool = False
    """Whether IPTC's properties for generative models name the variant too."""

    def properties(self) -> dict[Name, str]:
        """Return the properties that say this, by name."""
        found = {
            (_IPTC, "DigitalSourceType"): _SOURCE_TYPE_URL + self.source_type,
            (_XMP, "CreatorTool"): f"{self.software} ({self.variant})",
        }
        if self.invents_texture:
            name, _, version = self.software.rpartition(" ")
            found |= {(_IPTC, "AISystemUsed"): f"{name}, {self.variant}", (_IPTC, "AISystemVersionUsed"): version}
        return found


def find_ai_source_type(xmp: bytes) -> str:
    """Return IPTC's term that calls an image the work of a trained model, in whole or in part; empty without one."""
    found = _SOURCE_TYPE.search(xmp)
    return found[1].decode() if found else ""


def make_xmp(properties: Mapping[Name, str]) -> bytes:
    """Return a packet with these properties; empty without any."""
    return _make_packet(tuple(properties.items())) if properties else b""


def rewrite_xmp(xmp: bytes, width: int, height: int, properties: Mapping[Name, str]) -> tuple[bytes, bool]:
    """Return the packet of an upload with `properties` set, and whether properties were left out of it.

    `width` and `height` are those of the upright result; sizes in the packet become these, the orientation 1. The
    packet is empty if the upload's is damaged or has more than MAX_KEPT_XMP_BYTES.
    """
    values = {
        (_TIFF, "Orientation"): "1",
        (_TIFF, "ImageWidth"): str(width),
        (_TIFF, "ImageLength"): str(height),
        (_EXIF, "PixelXDimension"): str(width),
        (_EXIF, "PixelYDimension"): str(height),
    }
    rdf, prefixes = _find_rdf(xmp)
    if rdf is None:
        return b"", False
    about, has_left_out = "", False
    descriptions = [node for node in rdf.elements() if node.name == (_RDF, "Description")]
    for node in descriptions:
        about = about or node.attributes.get((_RDF, "about"), "")
        has_left_out |= any(map(_is_left_out, _properties(node)))
        replaced = {*properties}
        node.attributes = {
            name: values.get(name, value)
            for name, value in node.attributes.items()
            if name not in replaced and not _is_left_out(name)
        }
        kept = [child for child in node.elements() if child.name not in replaced and not _is_left_out(child.name)]
        for child in kept:
            if child.name in values:
                child.attributes, child.children = {}, [values[child.name]]
        node.children = [*kept]
    if properties:
        descriptions.append(Node((_RDF, "Description"), {(_RDF, "about"): about, **properties}))
    rdf.children = [*descriptions]
    packet = _write_packet(rdf, prefixes)
    return (packet, has_left_out) if len(packet) <= MAX_KEPT_XMP_BYTES + _MAX_ADDED_BYTES else (b"", False)


@lru_cache(maxsize=64)
def _make_packet(properties: tuple[tuple[Name, str], ...]) -> bytes:
    """Return `make_xmp`, kept for the next result: the results of a variant have the same properties."""
    about: dict[Name, str] = {(_RDF, "about"): ""}
    return _write_packet(Node((_RDF, "RDF"), {}, [Node((_RDF, "Description"), about | dict(properties))]), {})


def _find_rdf(xmp: bytes) -> tuple[Node | None, dict[str, str]]:
    if len(xmp) > MAX_KEPT_XMP_BYTES:
        return None, {}
    try:
        root, prefixes = parse_xml(xmp.rstrip(b"\0"))
    except XmlError:
        return None, {}
    return next((node for node in root.walk() if node.name == (_RDF, "RDF")), None), prefixes


def _properties(description: Node) -> list[Name]:
    return [*description.attributes, *(child.name for child in description.elements())]


def _is_left_out(name: Name) -> bool:
    return name in _LEFT_OUT or name[0].startswith(_LEFT_OUT_NAMESPACES)


def _write_packet(rdf: Node, prefixes: dict[str, str]) -> bytes:
    text = write_xml(Node((_META, "xmpmeta"), {}, [rdf]), {**prefixes, **_PREFIXES})
    start = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    return f'{start}{text}<?xpacket end="r"?>'.encode()
