"""Tells whether the last scan of a JPEG is all there, by decoding it again with more bits behind it.

libjpeg makes up what a scan lacks (grey, or no detail) and only warns, which Pillow does not pass on. But whoever has
all blocks of a scan skips what follows them; whoever lacks some takes it for them, and the pixels differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as PilImage

_SCAN, _FILL = 0xDA, b"\xff"
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_BITS = b"\x55" * 16
# A decoder that waits for a restart marker skips what comes before one: each of the eight has its bits.
_TAIL = _BITS + b"".join(bytes((0xFF, 0xD0 + number)) + _BITS for number in range(8))
_BAND_ROWS = 256


def lengthen_last_scan(essence: Sequence[bytes | memoryview]) -> list[bytes | memoryview] | None:
    """Return the essence with more bits at the end of its last scan; None where that would tell nothing.

    Arithmetic coding may leave out the zeros at the end of a whole scan (ITU-T T.81 section D.1.8).
    """
    markers = [segment[1] if len(segment) > 1 else 0 for segment in essence]
    if not any(marker in _HUFFMAN_FRAMES for marker in markers[1:]):
        return None
    last = max(at for at, marker in enumerate(markers) if marker == _SCAN)
    scan = bytes(essence[last]).rstrip(_FILL)  # before a marker fill bytes are allowed; before bits they would be one
    return [*essence[:last], scan + _TAIL, *essence[last + 1 :]]


def are_alike(one: PilImage.Image, other: PilImage.Image) -> bool:
    """Whether two images of one size have the same pixels; band by band, so that no third one is held."""
    width, height = one.size
    bands = ((0, top, width, min(top + _BAND_ROWS, height)) for top in range(0, height, _BAND_ROWS))
    return all(np.array_equal(np.asarray(one.crop(band)), np.asarray(other.crop(band))) for band in bands)
