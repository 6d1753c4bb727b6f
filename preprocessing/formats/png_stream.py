"""Writes a PNG band by band, so that memory follows the band and not the image.

zlib level 1 with the Up filter on every row: half the time of Pillow at level 1, files as large
(docs/explanation/codec.md has the figures, and those of the other filters).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from preprocessing.formats.png import SIGNATURE
from preprocessing.image import Pixels

CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
MAX_SIDE = 2**31 - 1
_COLOUR_TYPES = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}
_FILTER_UP = 2


class PngStream:
    """A PNG of known size, written as its rows arrive: `header`, then `rows` as often as needed, then `finish`."""

    def __init__(self, width: int, height: int, mode: str, icc_profile: bytes | None = None) -> None:
        if mode not in CHANNELS:
            raise ValueError(f"A PNG is written as {', '.join(CHANNELS)}, not as {mode!r}.")
        if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
            raise ValueError(f"A PNG has 1 to {MAX_SIDE} pixels a side, not {width} x {height}.")
        self.width, self.height, self.mode, self.icc_profile = width, height, mode, icc_profile
        self._rows_missing = height
        self._row_above = np.zeros(width * CHANNELS[mode], np.uint8)
        self._compressor = zlib.compressobj(1)

    def header(self) -> bytes:
        """Return everything before the pixels: signature, size, profile."""
        size = struct.pack(">IIBBBBB", self.width, self.height, 8, _COLOUR_TYPES[self.mode], 0, 0, 0)
        profile = b""
        if self.icc_profile is not None:
            profile = _chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(self.icc_profile, 1))
        return SIGNATURE + _chunk(b"IHDR", size) + profile

    def rows(self, pixels: Pixels) -> bytes:
        """Return the chunk of the next rows, [h, width, channels] uint8 ([h, width] in mode L); may be empty."""
        flat = self._check(pixels)
        if not len(flat):
            return b""
        filtered = np.empty((len(flat), 1 + flat.shape[1]), np.uint8)
        filtered[:, 0] = _FILTER_UP
        np.subtract(flat[0], self._row_above, out=filtered[0, 1:])
        np.subtract(flat[1:], flat[:-1], out=filtered[1:, 1:])
        self._row_above = flat[-1].copy()
        self._rows_missing -= len(flat)
        packed = self._compressor.compress(filtered.data)
        return _chunk(b"IDAT", packed) if packed else b""

    def finish(self) -> bytes:
        """Return what is left and the end; raises ValueError while rows are missing."""
        if self._rows_missing:
            raise ValueError(f"The PNG has {self.height} rows and {self._rows_missing} of them were never written.")
        return _chunk(b"IDAT", self._compressor.flush()) + _chunk(b"IEND", b"")

    def _check(self, pixels: Pixels) -> Pixels:
        channels = CHANNELS[self.mode]
        shaped = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
        if pixels.dtype != np.uint8 or shaped.ndim != 3 or shaped.shape[1:] != (self.width, channels):
            raise ValueError(
                f"Rows of this PNG are uint8 [h, {self.width}, {channels}], not {pixels.dtype} {list(pixels.shape)}."
            )
        if len(shaped) > self._rows_missing:
            raise ValueError(f"{len(shaped)} rows arrived and {self._rows_missing} of {self.height} were missing.")
        return np.ascontiguousarray(shaped).reshape(len(shaped), self.width * channels)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
