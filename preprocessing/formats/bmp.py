"""BMP (Windows bitmap, headers of OS/2 to V5): read the headers without decoding a pixel."""

from __future__ import annotations

import struct

from preprocessing.errors import UnreadableImageError
from preprocessing.formats.container import MAX_ICC_BYTES, Container
from preprocessing.formats.exif import sound_dpi
from preprocessing.formats.png_metadata import METRES_PER_INCH

SIGNATURE = b"BM"

# Bytes of the information header: OS/2 1, Windows 3, with masks, with alpha mask, OS/2 2, V4, V5.
_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)
_BITS = (1, 4, 8, 16, 24, 32)
_UNCOMPRESSED, _RLE8, _RLE4, _BIT_FIELDS = range(4)
_EMBEDDED_PROFILE = b"DEBM"  # PROFILE_EMBEDDED of bV5CSType, little-endian


def read_bmp(data: bytes) -> Container:
    """Return the facts in the headers of a BMP.

    Raises UnreadableImageError when the size of the image is missing. Any other defect is returned in
    `Container.defect`, so that the caller can check the size first.
    """
    header_bytes = int.from_bytes(data[14:18], "little")
    if len(data) < 14 + header_bytes or header_bytes not in _HEADER_BYTES:
        raise UnreadableImageError("Invalid BMP: no image size found. Send the whole file.")
    compression, dpi = _UNCOMPRESSED, None
    if header_bytes == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits, compression, _, x, y = struct.unpack_from("<iiHHIIii", data, 18)
        dpi = sound_dpi(x * METRES_PER_INCH, y * METRES_PER_INCH)
        height = abs(height)  # negative: the first row is the upper one
    if width < 1 or height < 1:
        raise UnreadableImageError(f"Invalid BMP: its header declares {width} x {height} pixels. Send the whole file.")
    has_alpha = bits == 32 and header_bytes >= 56 and struct.unpack_from("<I", data, 66)[0] != 0
    return Container(
        format="BMP",
        width=width,
        height=height,
        mode="P" if bits <= 8 else "RGBA" if has_alpha else "RGB",
        required_chunks=(data,),
        icc_profile=_read_profile(data) if header_bytes == 124 else None,
        dpi=dpi,
        defect=_find_defect(data, width, height, bits, compression),
    )


def _find_defect(data: bytes, width: int, height: int, bits: int, compression: int) -> str:
    if bits not in _BITS:
        return f"This BMP has {bits} bits per pixel; only 1, 4, 8, 16, 24 and 32 are supported. Save it as PNG."
    if compression > _BIT_FIELDS:
        return f"This BMP has the compression {compression}, which is not supported. Save it as PNG."
    if compression in (_UNCOMPRESSED, _BIT_FIELDS):
        needed = int.from_bytes(data[10:14], "little") + (width * bits + 31) // 32 * 4 * height
        if len(data) < needed:
            return f"Truncated BMP: its header declares {needed:,} bytes; it has {len(data):,}. Send the whole file."
    return ""


def _read_profile(data: bytes) -> bytes | None:
    """Return the ICC profile of a V5 header; None when it has none."""
    (kind,) = struct.unpack_from("4s", data, 14 + 56)
    offset, size = struct.unpack_from("<II", data, 14 + 112)
    if kind != _EMBEDDED_PROFILE or not size:
        return None
    return data[14 + offset : 14 + offset + min(size, MAX_ICC_BYTES + 1)] or None
