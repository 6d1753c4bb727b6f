"""AVIF and HEIC (ISO/IEC 14496-12 and 23008-12): read the boxes without decoding a pixel.

Size, cropping, turning, colours and bits are properties of the primary image. Everything else is only named.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from preprocessing.errors import UnreadableImageError
from preprocessing.formats.container import MAX_ICC_BYTES, MAX_PARTS, MAX_XMP_BYTES, Container, InputFormat
from preprocessing.formats.exif import orientation_after
from preprocessing.formats.isobmff_items import exif_of_item, read_item

_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIF"),
}
# Brands of files with images in any coding.
_CONTAINER_BRANDS = (b"mif1", b"msf1", b"mif2")
_CODINGS: dict[bytes, InputFormat] = {b"av01": "AVIF", b"hvc1": "HEIF", b"hev1": "HEIF"}
_DERIVED = (b"grid", b"iden", b"iovl", b"tmap")

# Items and properties that are read. A 48-megapixel HEIC of a phone has some 100 of both.
_MAX_ITEMS = 4_096
_ALPHA_KINDS = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
_AUXILIARIES = (
    (b"hdrgainmap", "the HDR gain map"),
    (b"depth", "the depth map"),
    (b"disparity", "the depth map"),
    (b"semantic", "further images"),
    (b"portrait", "further images"),
)
# Types of uuid boxes: a C2PA manifest (C2PA specification 2.2, annex A.5) and XMP (XMP specification, part 3).
_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
# Boxes that make up an image or an image sequence, and padding.
_IMAGE_BOXES = (b"ftyp", b"meta", b"mdat", b"moov", b"moof", b"mfra", b"sidx", b"pdin", b"free", b"skip", b"wide")
# Smaller boxes of unknown kinds are not mentioned.
_MIN_UNKNOWN_BYTES = 256
# Primaries, transfer functions and values of cICP that mean sRGB or leave it open (ITU-T H.273). BT.709 in an image is
# shown as sRGB by browsers.
_SRGB_PRIMARIES, _SRGB_TRANSFERS = (0, 1, 2), (0, 1, 2, 6, 13)


@dataclass(eq=False)
class _Meta:
    """The boxes of `meta` that say which items there are and what belongs to them."""

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    """Item -> its type of four letters."""
    references: list[tuple[bytes, int, int]] = field(default_factory=list)
    """(kind, from item, to item)."""
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    """(type, body) in the order of ipco, numbered from 1."""
    associations: dict[int, list[int]] = field(default_factory=dict)
    """Item -> numbers of its properties, in order."""
    xmp_items: list[int] = field(default_factory=list)
    iloc: bytes = b""
    idat: bytes = b""

    def of(self, item: int) -> list[tuple[bytes, bytes]]:
        """Return the properties of an item, in order."""
        numbers = self.associations.get(item, [])
        return [self.properties[number - 1] for number in numbers if 1 <= number <= len(self.properties)]

    def coding(self, item: int) -> InputFormat | None:
        """Return how an item is coded; of a derived image, how its first part is."""
        for _ in range(4):
            kind = self.kinds.get(item, b"")
            if kind not in _DERIVED:
                return _CODINGS.get(kind)
            parts = [to for reference, source, to in self.references if reference == b"dimg" and source == item]
            if not parts:
                return None
            item = parts[0]
        return None


def is_image(data: bytes) -> bool:
    """Return whether these bytes begin with a file type box of an AVIF or HEIC, not of a video."""
    return data[4:8] == b"ftyp" and (data[8:12] in _BRANDS or data[8:12] in _CONTAINER_BRANDS)


def read_isobmff(data: bytes) -> Container:
    """Return the facts in the headers of an AVIF or HEIC.

    Raises UnreadableImageError when the size of the image is missing. Any other defect is returned in
    `Container.defect`, so that the caller can check the size first.
    """
    try:
        return _read(data)
    except (struct.error, IndexError) as error:
        raise _no_size() from error


def _read(data: bytes) -> Container:
    found = list(_boxes(memoryview(data)))
    boxes = dict(found)
    if b"meta" not in boxes:
        raise _no_size()
    meta = _read_meta(boxes[b"meta"][4:])
    properties = meta.of(meta.primary)
    format_ = meta.coding(meta.primary) or _BRANDS.get(data[8:12], "HEIF")
    name = "AVIF" if format_ == "AVIF" else "HEIC"
    width, height, orientation, bits, profile, nclx = 0, 0, 1, 8, None, b""
    for kind, body in properties:
        if kind == b"ispe":
            width, height = struct.unpack_from(">II", body, 4)
        elif kind == b"clap" and format_ == "HEIF":  # libavif leaves cropping to its caller, and Pillow does not crop
            width, height = _crop(body, width, height)
        elif kind == b"irot":
            orientation = orientation_after(orientation, quarter_turns=body[0] & 3)
        elif kind == b"imir":
            orientation = orientation_after(orientation, mirror=body[0] & 1)
        elif kind == b"pixi":
            bits = max(body[5 : 5 + body[4]], default=8)
        elif kind == b"colr" and body[:4] in (b"prof", b"rICC"):
            profile = body[4 : 4 + MAX_ICC_BYTES + 1]
        elif kind == b"colr" and body[:4] == b"nclx":
            nclx = body[4:11]
    if not width or not height:
        raise _no_size()
    has_alpha = any(
        reference == b"auxl" and to == meta.primary and _auxiliary_kind(meta, source).startswith(_ALPHA_KINDS)
        for reference, source, to in meta.references
    )
    exif_items = [item for item, kind in meta.kinds.items() if kind == b"Exif"]
    exif = exif_of_item(read_item(data, meta.iloc, meta.idat, exif_items[0])) if exif_items else b""
    xmp = read_item(data, meta.iloc, meta.idat, meta.xmp_items[0]) if meta.xmp_items else _find_xmp_box(found)
    return Container(
        format="AVIF" if format_ == "AVIF" else "HEIF",
        width=width,
        height=height,
        mode="RGBA" if has_alpha else "RGB",
        required_chunks=(data,),
        bits=bits,
        frames=_count_frames(boxes[b"moov"]) if b"moov" in boxes else 1,
        orientation=orientation,
        icc_profile=profile,
        colour_chunks=_make_chunks(nclx) if profile is None else {},
        exif=exif,
        xmp=xmp[:MAX_XMP_BYTES],
        dropped=tuple(sorted(_name_dropped(meta, has_exif=bool(exif), has_xmp=bool(xmp)) | _name_boxes(found))),
        defect=_find_defect(data, meta, name),
    )


def _no_size() -> UnreadableImageError:
    return UnreadableImageError("Invalid or truncated AVIF or HEIC: no image size found. Send the whole file.")


def _boxes(view: memoryview) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, body) of the boxes that lie inside, at most MAX_PARTS; the body of mdat is left out."""
    at = 0
    for _ in range(MAX_PARTS):
        if at + 8 > len(view):
            return
        size, kind = struct.unpack_from(">I4s", view, at)
        start = at + 8
        if size == 1 and at + 16 <= len(view):
            (size,) = struct.unpack_from(">Q", view, start)
            start += 8
        end = len(view) if size == 0 else at + size
        if end < start or end > len(view):
            return
        yield kind, b"" if kind == b"mdat" else bytes(view[start:end])
        at = end


def _read_meta(body: bytes) -> _Meta:
    meta = _Meta()
    for kind, content in _boxes(memoryview(body)):
        version = content[0] if content else 0
        if kind == b"pitm":
            meta.primary = int.from_bytes(content[4 : 6 if version == 0 else 8], "big")
        elif kind == b"iinf":
            _read_items(meta, content[6 if version == 0 else 8 :])
        elif kind == b"iloc":
            meta.iloc = content
        elif kind == b"idat":
            meta.idat = content
        elif kind == b"iref":
            _read_references(meta, content[4:], "H" if version == 0 else "I")
        elif kind == b"iprp":
            _read_properties(meta, content)
    return meta


def _read_items(meta: _Meta, body: bytes) -> None:
    for number, (kind, content) in enumerate(_boxes(memoryview(body))):
        if kind != b"infe" or len(content) < 12 or number >= _MAX_ITEMS:
            continue
        is_short = content[0] == 2
        item = int.from_bytes(content[4 : 6 if is_short else 8], "big")
        start = 8 if is_short else 10
        meta.kinds.setdefault(item, content[start : start + 4])
        if content[start : start + 4] == b"mime" and b"\0application/rdf+xml" in content[start + 4 :]:
            meta.xmp_items.append(item)


def _read_references(meta: _Meta, body: bytes, code: str) -> None:
    for kind, content in _boxes(memoryview(body)):
        source, count = struct.unpack_from(f">{code}H", content)
        start = struct.calcsize(f">{code}H")
        for to in struct.unpack_from(f">{count}{code}", content, start):
            if len(meta.references) < _MAX_ITEMS:
                meta.references.append((kind, source, to))


def _read_properties(meta: _Meta, body: bytes) -> None:
    for kind, content in _boxes(memoryview(body)):
        if kind == b"ipco":
            meta.properties = [box for box, _ in zip(_boxes(memoryview(content)), range(_MAX_ITEMS), strict=False)]
        elif kind == b"ipma":
            _read_associations(meta, content)


def _read_associations(meta: _Meta, body: bytes) -> None:
    is_short, is_wide = body[0] == 0, body[3] & 1
    (count,) = struct.unpack_from(">I", body, 4)
    at, item_bytes = 8, 2 if is_short else 4
    for _ in range(min(count, _MAX_ITEMS)):
        item, links = int.from_bytes(body[at : at + item_bytes], "big"), body[at + item_bytes]
        at += item_bytes + 1
        numbers = struct.unpack_from(f">{links}{'H' if is_wide else 'B'}", body, at)
        at += links * (2 if is_wide else 1)
        meta.associations.setdefault(item, [number & (0x7FFF if is_wide else 0x7F) for number in numbers])


def _crop(body: bytes, width: int, height: int) -> tuple[int, int]:
    """Return the size after clean aperture; unchanged for one that is not inside the image."""
    width_n, width_d, height_n, height_d = struct.unpack_from(">4I", body)
    if not width_d or not height_d:
        return width, height
    cropped = math.ceil(width_n / width_d - 0.5), math.ceil(height_n / height_d - 0.5)
    return cropped if 1 <= cropped[0] <= width and 1 <= cropped[1] <= height else (width, height)


def _make_chunks(nclx: bytes) -> dict[bytes, bytes]:
    """Return the colours of nclx as a cICP chunk of RGB, full range; none for sRGB."""
    if len(nclx) < 4:
        return {}
    primaries, transfer = struct.unpack_from(">HH", nclx)
    if (primaries in _SRGB_PRIMARIES and transfer in _SRGB_TRANSFERS) or max(primaries, transfer) > 255:
        return {}
    known = (primaries if primaries not in (0, 2) else 1, transfer if transfer not in _SRGB_TRANSFERS else 13)
    return {b"cICP": bytes((*known, 0, 1))}


def _auxiliary_kind(meta: _Meta, item: int) -> bytes:
    return next((body[4:].split(b"\0")[0] for kind, body in meta.of(item) if kind == b"auxC"), b"")


def _find_xmp_box(boxes: list[tuple[bytes, bytes]]) -> bytes:
    return next((body[16:] for kind, body in boxes if kind == b"uuid" and body[:16] == _XMP), b"")


def _name_boxes(boxes: list[tuple[bytes, bytes]]) -> set[str]:
    """Return what the boxes of the file itself hold that no result has, in words."""
    found = set[str]()
    for kind, body in boxes:
        if (kind == b"uuid" and body[:16] == _C2PA) or kind == b"jumb":
            found.add("the C2PA manifest")
        elif kind == b"uuid" and body[:16] == _XMP:  # named with the rest of the metadata
            continue
        elif kind in (b"mpvd", b"mpv2"):
            found.add("the video of a motion photo")
        elif kind not in _IMAGE_BOXES and len(body) >= _MIN_UNKNOWN_BYTES:
            found.add("data of the camera or program")
    return found


def _name_dropped(meta: _Meta, *, has_exif: bool, has_xmp: bool) -> set[str]:
    """Return what else the items hold, in words. Tiles, alpha and thumbnails belong to the image itself."""
    found = set[str]()
    belonging = {meta.primary}
    for reference, source, to in meta.references:
        if reference in (b"auxl", b"thmb"):
            belonging.add(source)
            kind = _auxiliary_kind(meta, source)
            found |= {words for part, words in _AUXILIARIES if reference == b"auxl" and part in kind}
        elif reference == b"dimg":
            belonging.add(to)
    for item, kind in meta.kinds.items():
        if kind == b"Exif" and not has_exif:
            found.add("EXIF")
        elif kind == b"mime" and not (has_xmp and item in meta.xmp_items):
            found.add("XMP" if item in meta.xmp_items else "text")
        elif kind == b"tmap":
            found.add("the HDR gain map")
        elif kind in (*_CODINGS, *_DERIVED) and item not in belonging:
            found.add("further images")
        elif kind == b"uri ":
            found.add("data of the camera or program")
    if any(kind == b"pasp" and body[:4] != body[4:8] for kind, body in meta.of(meta.primary)):
        found.add("the shape of the pixels")
    return found


def _count_frames(moov: bytes) -> int:
    """Return the number of samples of the first track of an image sequence; 1 when it cannot be found."""
    body = moov
    for wanted in (b"trak", b"mdia", b"minf", b"stbl", b"stsz"):
        body = next((content for kind, content in _boxes(memoryview(body)) if kind == wanted), b"")
    return max(1, int.from_bytes(body[8:12], "big")) if len(body) >= 12 else 1


def _find_defect(data: bytes, meta: _Meta, name: str) -> str:
    if meta.coding(meta.primary) is None:
        kind = meta.kinds.get(meta.primary, b"").decode("ascii", "replace")
        return f"This {name} is coded in a way ({kind!r}) that is not supported. Save it as JPEG or PNG."
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size or len(data) - at
        if size < 8:
            return ""
        at += size
    if at > len(data):
        return f"Truncated {name}: its boxes declare {at:,} bytes; it has {len(data):,}. Send the whole file."
    return ""
