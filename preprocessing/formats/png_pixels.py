"""Tells whether the pixels of a PNG are all there, by inflating them in pieces of which none is kept.

Pillow says nothing when a sound zlib stream ends before the last row: the rest stays black. So what the header promises
is counted before Pillow is asked. What follows the last row is never inflated.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

from preprocessing.errors import UnreadableImageError

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ONE_PASS = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column, first row, step right, step down of each pass (W3C PNG section 8.1)."""

_PIECE = 16_384
"""Bytes inflated at once. zlib hands back what it did not use, a copy: from a whole IDAT that would be quadratic."""
_MAX_INFLATED = 262_144


def check_pixels(essence: Sequence[bytes | memoryview]) -> None:
    """Raise UnreadableImage when the IDAT chunks hold fewer bytes than the size in IHDR takes, zlib.error when broken.

    The essence is a signature and whole chunks, IHDR first, of a size that was found to be within the limits.
    """
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", essence[1][8:21])
    promised = _count_promised(width, height, depth * _CHANNELS[colour], _ADAM7 if interlace else _ONE_PASS)
    held = _count_held(essence, promised)
    if held < promised:
        raise UnreadableImageError(
            f"The PNG is truncated or corrupt: it holds {held:,} of the {promised:,} bytes "
            f"that {width} x {height} pixels take. Send the whole file."
        )


def _count_promised(width: int, height: int, pixel_bits: int, passes: Sequence[tuple[int, int, int, int]]) -> int:
    """Return the bytes of all rows, each with its filter byte; a pass without a column has no rows."""
    total = 0
    for left, top, right, down in passes:
        columns, rows = len(range(left, width, right)), len(range(top, height, down))
        total += rows * (1 + (columns * pixel_bits + 7) // 8) if columns else 0
    return total


def _count_held(essence: Sequence[bytes | memoryview], enough: int) -> int:
    """Return how many bytes the IDAT chunks inflate to; counting ends at `enough`."""
    inflater, held = zlib.decompressobj(), 0
    for packed in _pieces(essence):
        rest: bytes | memoryview = packed
        # Asked for no more than is missing, zlib says as little as to Pillow of what comes after the last row.
        while inflated := inflater.decompress(rest, min(_MAX_INFLATED, enough - held)):
            held += len(inflated)
            if held == enough:
                return held
            rest = inflater.unconsumed_tail
        if inflater.eof:
            break
    return held


def _pieces(essence: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    for chunk in essence[1:]:
        if chunk[4:8] == b"IDAT":
            for at in range(8, len(chunk) - 4, _PIECE):
                yield chunk[at : min(at + _PIECE, len(chunk) - 4)]
