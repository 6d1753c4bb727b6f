"""Items of an AVIF or HEIC that are data, not images: the bytes of EXIF and XMP (ISO/IEC 14496-12 section 8.11.3)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

# EXIF of phones has 2 to 60 kB, in one part.
MAX_ITEM_BYTES = 1_048_576
_MAX_ITEMS = 4_096
_MAX_PARTS = 64


def read_item(data: bytes, iloc: bytes, idat: bytes, item: int) -> bytes:
    """Return the bytes of an item; empty when they lie outside of the file, or are more than MAX_ITEM_BYTES.

    `iloc` and `idat` are the bodies of these boxes.
    """
    try:
        for number, method, parts in _locations(iloc):
            if number == item:
                source = {0: data, 1: idat}.get(method, b"")
                found = b""
                for start, length in parts:  # a length of 0: to the end
                    found += source[start : start + min(length or len(source), MAX_ITEM_BYTES + 1)]
                    if len(found) > MAX_ITEM_BYTES:
                        return b""
                return found
    except (struct.error, IndexError):
        return b""
    return b""


def exif_of_item(body: bytes) -> bytes:
    """Return the TIFF block of an item of type Exif, which begins with the offset of that block."""
    return body[4 + int.from_bytes(body[:4], "big") :] if len(body) > 4 else b""


def _locations(iloc: bytes) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Yield (item, construction method, its parts as offset and length)."""
    version, sizes = iloc[0], int.from_bytes(iloc[4:6], "big")
    offset_bytes, length_bytes, base_bytes = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_bytes = sizes & 15 if version else 0
    wide = 4 if version == 2 else 2
    at = 6

    def take(n_bytes: int) -> int:
        nonlocal at
        if at + n_bytes > len(iloc):
            raise IndexError
        at += n_bytes
        return int.from_bytes(iloc[at - n_bytes : at], "big")

    for _ in range(min(take(wide), _MAX_ITEMS)):
        item, method = take(wide), take(2) & 15 if version else 0
        take(2)  # the file that holds the data: this one
        base, count = take(base_bytes), take(2)
        parts = []
        for _ in range(count):
            take(index_bytes)
            parts.append((base + take(offset_bytes), take(length_bytes)))
        yield item, method, parts if count <= _MAX_PARTS else []
