"""EXIF of an upload: orientation, resolution, and what else it holds (EXIF 2.32 section 4.6).

The orientation is read from EXIF or XMP (tiff:Orientation); EXIF wins where both have one, as in Pillow. Of all other
tags only the names are read, so that the user learns that the location, say, is not in the result. Broken metadata
means orientation 1 and no resolution. `preprocessing.metadata.exif_rewrite` writes what a result keeps.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image as PilImage

_HEADER = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_X_RESOLUTION_TAG, _Y_RESOLUTION_TAG, _UNIT_TAG, _GPS_TAG = 0x011A, 0x011B, 0x0128, 0x8825
_SHORT, _LONG, _RATIONAL = 3, 4, 5  # the standard requires SHORT for the orientation; some writers use LONG
_READ_TAGS = {_ORIENTATION_TAG, _UNIT_TAG, _X_RESOLUTION_TAG, _Y_RESOLUTION_TAG}
_PHOTO_TAG, _MAKER_NOTE_TAG = 0x8769, 0x927C
_NEXT_DIRECTORY = -1  # not a tag: the offset behind the entries of a directory
LOCATION, THUMBNAIL, MAKER_NOTE = "location", "thumbnail", "maker's note"
MAX_DPI = 65_535

# As an attribute or an element; every repetition is bounded, so the search takes linear time.
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:\s{0,8}=\s{0,8}[\"']|>)\s{0,8}([0-9])")


# The operation that undoes each EXIF orientation (EXIF 2.32 section 4.6.4).
TRANSPOSITIONS = {
    2: PilImage.Transpose.FLIP_LEFT_RIGHT,
    3: PilImage.Transpose.ROTATE_180,
    4: PilImage.Transpose.FLIP_TOP_BOTTOM,
    5: PilImage.Transpose.TRANSPOSE,
    6: PilImage.Transpose.ROTATE_270,
    7: PilImage.Transpose.TRANSVERSE,
    8: PilImage.Transpose.ROTATE_90,
}


# (quarter turns anticlockwise, then whether left and right are exchanged) -> orientation.
_TURNS = {
    (0, False): 1,
    (1, False): 8,
    (2, False): 3,
    (3, False): 6,
    (0, True): 2,
    (1, True): 7,
    (2, True): 4,
    (3, True): 5,
}


class Orientation(NamedTuple):
    """How an image must be turned before it is shown."""

    value: int = 1
    """1..8 (EXIF 2.32 section 4.6.4)."""
    is_shown_by_browsers: bool = True
    """Whether browsers turn the image too: none of them reads XMP, and they require the type SHORT."""


def find_orientation(exif: bytes, xmp: bytes, *, is_exif_read_by_browsers: bool) -> Orientation:
    """Return the orientation in EXIF, else in XMP; 1 when neither has one.

    `is_exif_read_by_browsers` says whether the EXIF block is where browsers look for it.
    """
    value, is_short = _find_tag(exif)
    if value is None:
        found = _XMP_ORIENTATION.search(xmp)
        value, is_exif_read_by_browsers = int(found[1]) if found else 1, False
    if not 2 <= value <= 8:
        return Orientation()
    return Orientation(value, is_shown_by_browsers=is_short and is_exif_read_by_browsers)


def read_orientation(exif: bytes) -> int:
    """Return the orientation 1..8 of an EXIF block; 1 when it has none or is broken."""
    return find_orientation(exif, b"", is_exif_read_by_browsers=True).value


def _find_tag(exif: bytes) -> tuple[int | None, bool]:
    """Return the value of the orientation tag, None without one, and whether it has the type of the standard."""
    for entry in _entries(exif):
        if entry.tag == _ORIENTATION_TAG and entry.type in (_SHORT, _LONG) and entry.n_values == 1:
            return entry.value, entry.type == _SHORT
    return None, False


def read_dpi(exif: bytes) -> tuple[float, float] | None:
    """Return the horizontal and vertical resolution in pixels per inch; None without a sound one."""
    first, _ = _read_first(exif)
    unit, *ratios = (first.get(tag) for tag in (_UNIT_TAG, _X_RESOLUTION_TAG, _Y_RESOLUTION_TAG))
    per_inch = {2: 1.0, 3: 2.54}.get(unit.value, 0.0) if unit else 0.0
    tiff = exif.removeprefix(_HEADER)
    values = []
    for ratio in ratios:
        if not per_inch or ratio is None or ratio.type != _RATIONAL or ratio.value + 8 > len(tiff):
            return None
        above, below = struct.unpack_from(f"{_BYTE_ORDERS[tiff[:4]]}II", tiff, ratio.value)
        values.append(per_inch * above / below if below else 0.0)
    return sound_dpi(values[0], values[1])


def sound_dpi(x: float, y: float) -> tuple[float, float] | None:
    """Return a resolution that JFIF can hold, 1 to 65,535 pixels per inch; None for any other."""
    return (x, y) if 1 <= round(x) <= MAX_DPI and 1 <= round(y) <= MAX_DPI else None


def find_parts(exif: bytes) -> tuple[str, ...]:
    """Return the parts of an EXIF block that users ask about, in words: location, thumbnail, maker's note."""
    first, next_directory = _read_first(exif)
    photo = _read_first(exif, first[_PHOTO_TAG].value)[0] if _PHOTO_TAG in first else {}
    found = {LOCATION: _GPS_TAG in first, THUMBNAIL: next_directory > 0, MAKER_NOTE: _MAKER_NOTE_TAG in photo}
    return tuple(name for name, is_there in found.items() if is_there)


def describe_exif(exif: bytes) -> str:
    """Return what an EXIF block holds in addition to orientation and resolution, in words; empty when nothing."""
    parts = find_parts(exif)
    if parts:
        return f"EXIF ({', '.join(parts)})"
    return "EXIF" if _read_first(exif)[0].keys() - _READ_TAGS else ""


class _Entry(NamedTuple):
    """An entry of a directory (TIFF 6.0 section 2)."""

    tag: int
    type: int
    n_values: int
    value: int
    """The value itself if it is one SHORT or LONG; else as a rule its offset."""


def _entries(exif: bytes, directory: int | None = None) -> Iterator[_Entry]:
    """Yield the entries of the first directory, or of the one at an offset, as far as they can be read.

    One directory is read once, so nested or circular directories cost nothing.
    """
    tiff = exif.removeprefix(_HEADER)
    byte_order = _BYTE_ORDERS.get(tiff[:4])
    if byte_order is None:
        return
    try:
        directory = struct.unpack_from(f"{byte_order}I", tiff, 4)[0] if directory is None else directory
        (entries,) = struct.unpack_from(f"{byte_order}H", tiff, directory)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, n_values = struct.unpack_from(f"{byte_order}HHI4x", tiff, at)  # whole, as in Chromium
            (value,) = struct.unpack_from(f"{byte_order}{'H' if kind == _SHORT else 'I'}", tiff, at + 8)
            yield _Entry(tag, kind, n_values, value)
        (following,) = struct.unpack_from(f"{byte_order}I", tiff, directory + 2 + 12 * entries)
        yield _Entry(_NEXT_DIRECTORY, _LONG, 1, following)
    except struct.error:  # an offset outside the block
        return


def _read_first(exif: bytes, directory: int | None = None) -> tuple[dict[int, _Entry], int]:
    """Return the first entry of each tag of a directory, and the offset of the next directory, 0 without one."""
    first: dict[int, _Entry] = {}
    for entry in _entries(exif, directory):
        first.setdefault(entry.tag, entry)
    following = first.pop(_NEXT_DIRECTORY, None)
    return first, following.value if following else 0


def orientation_after(orientation: int, *, quarter_turns: int = 0, mirror: int | None = None) -> int:
    """Return the orientation after a further turn, anticlockwise, or a mirroring: 0 top to bottom, 1 left to right."""
    turns, is_mirrored = next(key for key, value in _TURNS.items() if value == orientation)
    if mirror == 0:  # top to bottom is a half turn, then left to right
        quarter_turns += 2
    turns += -quarter_turns if is_mirrored else quarter_turns
    return _TURNS[turns % 4, is_mirrored != (mirror is not None)]


def swaps_sides(orientation: int) -> bool:
    """Return whether applying this orientation exchanges width and height."""
    return orientation >= 5
