"""EXIF of a result: an upload's EXIF parsed and written again, or a new block with a resolution (TIFF 6.0, EXIF 2.32).

Nothing is copied unparsed: each entry of the four directories (image, photo, GPS, interoperability) has a known type
and a value inside the block, and gets a new offset. Left out are the thumbnail, the maker's note, whose offsets would
be wrong, and tags that describe how the pixels of the upload were stored.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from fractions import Fraction

_HEADER = b"Exif\0\0"
# The body of a JPEG segment without `_HEADER`; PNG and WebP could hold more.
MAX_EXIF_BYTES = 65_535 - 2 - len(_HEADER)
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}

# Bytes of one value by type (TIFF 6.0 section 2; 13 is IFD, 129 UTF-8 of EXIF 3.0).
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 129: 1}
_SHORT, _LONG, _RATIONAL = 3, 4, 5

_PHOTO, _GPS, _INTEROPERABILITY = 0x8769, 0x8825, 0xA005
_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 0x0112, 0x011A, 0x011B, 0x0128
_PIXELS_X, _PIXELS_Y = 0xA002, 0xA003
_MAKER_NOTE = 0x927C
_LEFT_OUT = {
    # How the pixels of a TIFF or a thumbnail are stored: sizes, samples, strips, tiles, JPEG.
    *(0x00FE, 0x00FF, 0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x010A, 0x0111, 0x0115, 0x0116, 0x0117, 0x011C),
    *(0x013D, 0x0140, 0x0142, 0x0143, 0x0144, 0x0145, 0x014A, 0x0152, 0x0153, 0x015B, 0x9102),
    *range(0x0200, 0x020A),
    *(0x0211, 0x0212, 0x0213, 0x0214),
    # XMP, IPTC, Photoshop's data and ICC profile, which are written in their own place; the thumbnail of Windows.
    *(0x02BC, 0x83BB, 0x8649, 0x8773, 0x501B),
    # Padding, data with offsets of its own, Photoshop's layers, and a C2PA manifest, which is signed for other pixels.
    *(_MAKER_NOTE, 0xEA1C, 0xC634, 0x935C, 0xCD41),
    *(_PHOTO, _GPS, _INTEROPERABILITY, _ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT),
}

_Directory = dict[int, tuple[int, bytes]]  # type and value by tag, the value in the byte order of the block


def rewrite_exif(exif: bytes, width: int, height: int, dpi: tuple[float, float] | None) -> bytes:
    """Return a TIFF block with what can be kept of an upload's EXIF; empty without any, or above MAX_EXIF_BYTES.

    `width`, `height` and `dpi` are those of the upright result. The orientation becomes 1, and the resolution `dpi`.
    """
    tiff = exif.removeprefix(_HEADER)
    byte_order = _BYTE_ORDERS.get(tiff[:4])
    if byte_order is None:
        return b""
    reader = _DirectoryReader(tiff, byte_order)
    found = reader.read(_as_offset(tiff[4:8], byte_order))
    offsets = {
        tag: _as_offset(value, byte_order)
        for tag, (kind, value) in found.items()
        if tag in (_PHOTO, _GPS) and kind == _LONG
    }
    photo, gps = (reader.read(offsets[tag]) if tag in offsets else {} for tag in (_PHOTO, _GPS))
    kind, value = photo.get(_INTEROPERABILITY, (0, b""))
    interoperability = reader.read(_as_offset(value, byte_order)) if kind == _LONG else {}
    if reader.n_bytes > MAX_EXIF_BYTES:
        return b""
    has_orientation = _ORIENTATION in found
    image, photo, gps, interoperability = map(_keep, (found, photo, gps, interoperability))
    if has_orientation:
        image[_ORIENTATION] = (_SHORT, struct.pack(f"{byte_order}H", 1))
    if dpi:
        image |= _resolution(dpi, byte_order)
    for tag, side in ((_PIXELS_X, width), (_PIXELS_Y, height)):
        if tag in photo:
            photo[tag] = (_LONG, struct.pack(f"{byte_order}I", side))
    written = _write(byte_order, image, photo, gps, interoperability)
    return written if len(written) <= MAX_EXIF_BYTES else b""


def resolution_exif(dpi: tuple[float, float]) -> bytes:
    """Return a TIFF block that holds a resolution and nothing else."""
    return _write("<", _resolution(dpi, "<"), {}, {}, {})


class _DirectoryReader:
    """Reads directories of one block; counts the bytes of all values, so that overlapping ones are bounded too."""

    def __init__(self, tiff: bytes, byte_order: str) -> None:
        self.n_bytes = 0
        self._tiff, self._byte_order = tiff, byte_order

    def read(self, offset: int) -> _Directory:
        """Return the sound entries of a directory, the first of each tag, until MAX_EXIF_BYTES are exceeded."""
        found: _Directory = {}
        tiff, byte_order = self._tiff, self._byte_order
        try:
            (entries,) = struct.unpack_from(f"{byte_order}H", tiff, offset)
            for at in range(offset + 2, offset + 2 + 12 * entries, 12):
                tag, kind, n_values = struct.unpack_from(f"{byte_order}HHI", tiff, at)
                n_bytes = n_values * _TYPE_BYTES.get(kind, 0)
                start = at + 8 if n_bytes <= 4 else _as_offset(tiff[at + 8 : at + 12], byte_order)
                if not n_bytes or tag in found or start + n_bytes > len(tiff):
                    continue
                if tag not in _LEFT_OUT:
                    self.n_bytes += 12 + n_bytes
                if self.n_bytes > MAX_EXIF_BYTES:
                    break
                found[tag] = (kind, b"" if tag in _LEFT_OUT and n_bytes > 4 else tiff[start : start + n_bytes])
        except struct.error:  # an offset outside the block
            pass
        return found


def _as_offset(value: bytes, byte_order: str) -> int:
    return int(struct.unpack(f"{byte_order}I", value)[0]) if len(value) == 4 else 2**32


def _keep(directory: _Directory) -> _Directory:
    return {tag: entry for tag, entry in directory.items() if tag not in _LEFT_OUT}


def _resolution(dpi: tuple[float, float], byte_order: str) -> _Directory:
    ratios = [Fraction(value).limit_denominator(10_000) for value in dpi]
    x, y = (struct.pack(f"{byte_order}II", ratio.numerator, ratio.denominator) for ratio in ratios)
    return {
        _X_RESOLUTION: (_RATIONAL, x),
        _Y_RESOLUTION: (_RATIONAL, y),
        _UNIT: (_SHORT, struct.pack(f"{byte_order}H", 2)),
    }


def _write(
    byte_order: str, image: _Directory, photo: _Directory, gps: _Directory, interoperability: _Directory
) -> bytes:
    """Return the block; empty when all directories are."""
    if not (image or photo or gps or interoperability):
        return b""
    body = bytearray(b"II*\0" if byte_order == "<" else b"MM\0*")
    body += struct.pack(f"{byte_order}I", 8)

    def append(directory: Mapping[int, tuple[int, bytes]], pointers: Mapping[int, Callable[[], int]]) -> int:
        """Append a directory and what its `pointers` append, and return its offset."""
        start, tags = len(body), sorted({*directory, *pointers})
        body.extend(bytes(2 + 12 * len(tags) + 4))  # the last four: no further directory
        struct.pack_into(f"{byte_order}H", body, start, len(tags))
        for at, tag in zip(range(start + 2, start + 2 + 12 * len(tags), 12), tags, strict=True):
            if tag in pointers:
                struct.pack_into(f"{byte_order}HHII", body, at, tag, _LONG, 1, pointers[tag]())
                continue
            kind, value = directory[tag]
            struct.pack_into(f"{byte_order}HHI", body, at, tag, kind, len(value) // _TYPE_BYTES[kind])
            if len(value) <= 4:
                body[at + 8 : at + 8 + len(value)] = value
            else:
                struct.pack_into(f"{byte_order}I", body, at + 8, len(body))
                body.extend(value + bytes(len(value) % 2))
        return start

    def append_photo() -> int:
        below = {_INTEROPERABILITY: lambda: append(interoperability, {})} if interoperability else {}
        return append(photo, below)

    pointers: dict[int, Callable[[], int]] = {}
    if photo or interoperability:
        pointers[_PHOTO] = append_photo
    if gps:
        pointers[_GPS] = lambda: append(gps, {})
    append(image, pointers)
    return bytes(body)
