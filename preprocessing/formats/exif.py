"""The one thing read from EXIF: the orientation (EXIF 2.32 section 4.6.4, tag 0x0112).

Everything else in EXIF (place, camera, time, thumbnail) is neither read nor kept. Broken EXIF means orientation 1.
"""

from __future__ import annotations

import struct

_HEADER = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_TYPE_CODES = {3: "H", 4: "I"}  # SHORT as the standard wants it; LONG is seen in the wild


def read_orientation(exif: bytes) -> int:
    """Return the orientation 1..8 of an EXIF block, 1 when it has none or cannot be trusted.

    Only the first directory is walked, once, so nested or circular directories cost nothing.
    """
    tiff = exif.removeprefix(_HEADER)
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for index in range(entries):
            at = directory + 2 + 12 * index
            tag, type_, count = struct.unpack_from(f"{order}HHI", tiff, at)
            if tag == _ORIENTATION_TAG and type_ in _TYPE_CODES and count == 1:
                (value,) = struct.unpack_from(f"{order}{_TYPE_CODES[type_]}", tiff, at + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:  # an offset outside the block
        return 1
    return 1


def swaps_sides(orientation: int) -> bool:
    """Tell whether applying this orientation exchanges width and height."""
    return orientation >= 5
