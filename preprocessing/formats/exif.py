"""EXIF: reads the orientation (EXIF 2.32 section 4.6.4, tag 0x0112).

Nothing else in EXIF (location, camera, time, thumbnail) is read or kept. Broken EXIF means orientation 1.
"""

from __future__ import annotations

import struct

_HEADER = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_TYPE_CODES = {3: "H", 4: "I"}  # the standard requires SHORT; some writers use LONG


def read_orientation(exif: bytes) -> int:
    """Return the orientation 1..8 of an EXIF block; 1 when it has none or is broken.

    Reads the first directory once, so nested or circular directories cost nothing.
    """
    tiff = exif.removeprefix(_HEADER)
    byte_order = _BYTE_ORDERS.get(tiff[:4])
    if byte_order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{byte_order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{byte_order}H", tiff, directory)
        for index in range(entries):
            at = directory + 2 + 12 * index
            tag, type_, count = struct.unpack_from(f"{byte_order}HHI", tiff, at)
            if tag == _ORIENTATION_TAG and type_ in _TYPE_CODES and count == 1:
                (value,) = struct.unpack_from(f"{byte_order}{_TYPE_CODES[type_]}", tiff, at + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:  # an offset outside the block
        return 1
    return 1


def swaps_sides(orientation: int) -> bool:
    """Whether applying this orientation exchanges width and height."""
    return orientation >= 5
