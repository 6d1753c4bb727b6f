"""The container of an AVIF: reads and writes boxes (ISO/IEC 14496-12; HEIF, 23008-12; AV1 Image File Format 1.1).

`read_frame` takes the AV1 data out of a file of one frame. `write_container` makes a file of frames of equal size, the
cells of a grid, as HEIF section 6.6.2.3 has it. One cell needs no grid.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_ALPHA_AUXILIARY = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
_XMP_TYPE = b"application/rdf+xml\0"
# Matrix coefficients of BT.601 (ITU-T H.273 table 4), in which Pillow converts to YUV; then the full-range flag.
_MATRIX_AND_RANGE = struct.pack(">HB", 6, 0x80)
_SRGB_CODES = (1, 13)
_UNSPECIFIED_CODES = (2, 2)
# Number of the image that a viewer shows.
_IMAGE = 1
# Properties without which a reader must not show an item.
_ESSENTIAL = (b"av1C",)


@dataclass(frozen=True)
class Frame:
    """One AV1 frame."""

    data: bytes = field(repr=False)
    properties: Mapping[bytes, bytes] = field(repr=False)
    """Type and body of its properties that do not depend on its size: av1C (decoder configuration) and pixi (bits)."""


@dataclass(frozen=True)
class Layout:
    """Size of the image and of its cells, in pixels. The last row and column of cells are cut."""

    width: int
    height: int
    cell_width: int
    cell_height: int

    @property
    def columns(self) -> int:
        """Cells side by side."""
        return -(-self.width // self.cell_width)

    @property
    def rows(self) -> int:
        """Rows of cells."""
        return -(-self.height // self.cell_height)


@dataclass(frozen=True)
class AvifColours:
    """What the pixels mean: a profile, or codes of colour primaries and transfer (H.273) without one."""

    icc_profile: bytes | None = field(default=None, repr=False)
    codes: tuple[int, int] = _SRGB_CODES


@dataclass(frozen=True)
class _Item:
    kind: bytes
    data: bytes
    properties: Sequence[tuple[bytes, bytes]] = ()
    references: Sequence[tuple[bytes, Sequence[int]]] = ()
    """Type of each reference, and the numbers of the items that it leads to."""
    is_hidden: bool = False


def read_frame(file: bytes) -> Frame:
    """Return the frame of an AVIF with one, as libavif writes it; raises ValueError for another file."""
    boxes = dict(_boxes(memoryview(file)))
    meta = dict(_boxes(boxes[b"meta"][4:]))
    properties = dict(_boxes(dict(_boxes(meta[b"iprp"]))[b"ipco"]))
    count = struct.unpack_from(">H", meta[b"iinf"], 4)[0]
    if count != 1:
        raise ValueError(f"the AVIF holds {count} items, not one")
    return Frame(bytes(boxes[b"mdat"]), {kind: bytes(properties[kind]) for kind in (b"av1C", b"pixi")})


def write_container(
    layout: Layout,
    colour: list[Frame],
    alpha: list[Frame],
    colours: AvifColours,
    *,
    exif: bytes = b"",
    xmp: bytes = b"",
) -> Iterator[bytes]:
    """Yield the parts of a file: its header, then the data of each frame. `alpha` is empty for an opaque image.

    Empties both lists, so that each frame can be freed once it is written. `exif` begins with the TIFF header.
    """
    described = [(b"colr", b"nclx" + struct.pack(">HH", *_codes(colours)) + _MATRIX_AND_RANGE)]
    if colours.icc_profile is not None:
        described.append((b"colr", b"prof" + colours.icc_profile))
    items = _image_items(layout, colour, described, first=1)
    if alpha:
        auxiliary = [(b"auxC", bytes(4) + _ALPHA_AUXILIARY)]
        items += _image_items(layout, alpha, auxiliary, first=len(items) + 1, references=[(b"auxl", [_IMAGE])])
    items += [_Item(b"Exif", bytes(4) + exif, references=[(b"cdsc", [_IMAGE])])] if exif else []
    items += [_Item(b"mime", xmp, references=[(b"cdsc", [_IMAGE])])] if xmp else []
    file_type = _box(b"ftyp", b"avif" + bytes(4) + b"avifmif1miaf")
    # The data follows the header, whose size does not depend on the offsets in it.
    start = len(file_type) + len(_meta(items, 0)) + 8
    yield file_type + _meta(items, start)
    data = deque(item.data for item in items)
    del items
    colour.clear()
    alpha.clear()
    yield struct.pack(">I4s", 8 + sum(map(len, data)), b"mdat")
    while data:
        yield data.popleft()


def _codes(colours: AvifColours) -> tuple[int, int]:
    return colours.codes if colours.icc_profile is None else _UNSPECIFIED_CODES


def _image_items(
    layout: Layout,
    frames: Sequence[Frame],
    described: Sequence[tuple[bytes, bytes]],
    *,
    first: int,
    references: Sequence[tuple[bytes, Sequence[int]]] = (),
) -> list[_Item]:
    """Return the item of an image, whose number is `first`, and those of its cells."""
    bits, decoder = ((kind, frames[0].properties[kind]) for kind in (b"pixi", b"av1C"))
    whole = [_size(layout.width, layout.height), bits, *described]
    if len(frames) == 1:
        return [_Item(b"av01", frames[0].data, [*whole, decoder], references)]
    cell = [_size(layout.cell_width, layout.cell_height), bits, *described, decoder]
    cells = range(first + 1, first + 1 + len(frames))
    grid = struct.pack(">BBBBII", 0, 1, layout.rows - 1, layout.columns - 1, layout.width, layout.height)
    return [
        _Item(b"grid", grid, whole, [*references, (b"dimg", cells)]),
        *(_Item(b"av01", frame.data, cell, is_hidden=True) for frame in frames),
    ]


def _size(width: int, height: int) -> tuple[bytes, bytes]:
    return b"ispe", struct.pack(">III", 0, width, height)


def _meta(items: Sequence[_Item], start: int) -> bytes:
    """Return the meta box of items whose data lies one after the other from `start` of the file on."""
    entries, locations, links = b"", b"", b""
    for number, item in enumerate(items, 1):
        content_type = _XMP_TYPE if item.kind == b"mime" else b""
        entry = struct.pack(">HH4sx", number, 0, item.kind) + content_type
        entries += _full_box(b"infe", entry, version=2, flags=int(item.is_hidden))
        locations += struct.pack(">HHHII", number, 0, 1, start, len(item.data))
        start += len(item.data)
        for kind, others in item.references:
            links += _box(kind, struct.pack(f">HH{len(others)}H", number, len(others), *others))
    return _full_box(
        b"meta",
        _full_box(b"hdlr", bytes(4) + b"pict" + bytes(13))
        + _full_box(b"pitm", struct.pack(">H", _IMAGE))
        + _full_box(b"iloc", struct.pack(">BBH", 0x44, 0, len(items)) + locations)
        + _full_box(b"iinf", struct.pack(">H", len(items)) + entries)
        + (_full_box(b"iref", links) if links else b"")
        + _box(b"iprp", _properties(items)),
    )


def _properties(items: Sequence[_Item]) -> bytes:
    """Return the properties, each stored once, and which item has which."""
    places: dict[tuple[bytes, bytes], int] = {}
    described, associations = 0, b""
    for number, item in enumerate(items, 1):
        if not item.properties:
            continue
        indices = [
            places.setdefault(each, len(places) + 1) | (0x80 if each[0] in _ESSENTIAL else 0)
            for each in item.properties
        ]
        associations += struct.pack(f">HB{len(indices)}B", number, len(indices), *indices)
        described += 1
    container = _box(b"ipco", b"".join(_box(*each) for each in places))
    return container + _full_box(b"ipma", struct.pack(">I", described) + associations)


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _full_box(kind: bytes, body: bytes, *, version: int = 0, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags) + body)


def _boxes(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield type and body of the boxes of a file that libavif wrote; its boxes have 32-bit sizes."""
    at = 0
    while at < len(view):
        size = int.from_bytes(view[at : at + 4], "big")
        yield bytes(view[at + 4 : at + 8]), view[at + 8 : at + size]
        at += size
