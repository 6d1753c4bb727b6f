"""Reads PNGs of 8 and 16 bits, for tests: Pillow reduces 16-bit colour to 8 bits."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def read_png(data: bytes) -> npt.NDArray[Any]:
    """Return the samples of a PNG that is not interlaced, [H, W, channels] uint8 or uint16 (W3C PNG section 9)."""
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IHDR":
            width, height, depth, colour_type = struct.unpack_from(">IIBB", data, at + 8)
        elif kind == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += 12 + length
    step = _CHANNELS[colour_type] * depth // 8
    stored = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * step)
    rows = np.zeros((height + 1, width + 1, step), np.int64)  # with a border of zeros above and on the left
    for number, row in enumerate(stored, 1):
        differences = row[1:].reshape(width, step)
        for column in range(1, width + 1):
            left, above, corner = rows[number, column - 1], rows[number - 1, column], rows[number - 1, column - 1]
            predicted = (0, left, above, (left + above) // 2, _paeth(left, above, corner))[row[0]]
            rows[number, column] = (differences[column - 1] + predicted) % 256
    samples = rows[1:, 1:].astype(np.uint8)
    return samples if depth == 8 else samples.view(">u2").astype(np.uint16)


def _paeth(left: Any, above: Any, corner: Any) -> Any:
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    second = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, second)
