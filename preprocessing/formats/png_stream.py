"""Writes a PNG of 8 or 16 bits row by row (W3C PNG, third edition).

`png_filters` filters the rows and `zlib_stream` compresses them. docs/explanation/codec.md has the figures.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from preprocessing.formats.png import MAX_SIDE, SIGNATURE, make_chunk
from preprocessing.formats.png_filters import filter_rows
from preprocessing.formats.zlib_stream import ZlibStream

CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
Depth: TypeAlias = Literal[8, 16]
"""Bits per sample."""

_COLOUR_TYPES = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}
# Bytes of rows that are filtered at once; filtering takes several times as much memory. An encoder with 131,072 takes
# 1.1 to 1.2 times as long, because NumPy is called more often.
_STEP_BYTES = 524_288


class PngStream:
    """A PNG of known size, written as its rows arrive: `header`, then `rows` once per band, then `finish`.

    Memory follows the band, not the image. The bytes depend on the pixels only.
    """

    def __init__(
        self,
        width: int,
        height: int,
        mode: str,
        icc_profile: bytes | None = None,
        colour_chunks: Mapping[bytes, bytes] = MappingProxyType({}),
        metadata_chunks: Sequence[tuple[bytes, bytes]] = (),
        *,
        depth: Depth = 8,
    ) -> None:
        """`colour_chunks` and `metadata_chunks` have type and body of each.

        Raises ValueError for a mode or a size that cannot be written.
        """
        if mode not in CHANNELS:
            raise ValueError(f"A PNG is written in one of the modes {', '.join(CHANNELS)}, not {mode!r}.")
        if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
            raise ValueError(f"A PNG has 1 to {MAX_SIDE} pixels per side, not {width} x {height}.")
        self.width, self.height, self.mode, self.depth, self.icc_profile = width, height, mode, depth, icc_profile
        self._colour_chunks, self._metadata_chunks = colour_chunks, metadata_chunks
        self._rows_missing = height
        self._pixel_bytes = CHANNELS[mode] * depth // 8
        self._row_above: npt.NDArray[np.uint8] | None = None
        self._compressed = ZlibStream()

    def header(self) -> bytes:
        """Return everything before the pixels: signature, size, colours, metadata.

        sRGB is left out next to a profile.
        """
        size = struct.pack(">IIBBBBB", self.width, self.height, self.depth, _COLOUR_TYPES[self.mode], 0, 0, 0)
        profile = b""
        if self.icc_profile is not None:
            profile = make_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(self.icc_profile, 1))
        colours = [
            make_chunk(kind, body)
            for kind, body in self._colour_chunks.items()
            if not (kind == b"sRGB" and self.icc_profile is not None)
        ]
        metadata = [make_chunk(kind, body) for kind, body in self._metadata_chunks]
        return b"".join((SIGNATURE, make_chunk(b"IHDR", size), *colours, profile, *metadata))

    def rows(self, pixels: npt.NDArray[Any]) -> bytes:
        """Return the chunk of the next rows; may be empty.

        `pixels` is [h, width, channels] ([h, width] in mode L), uint8, or uint16 for 16 bits.
        """
        rows = self._to_bytes(pixels)
        step = max(1, _STEP_BYTES // rows.shape[1])
        packed: list[bytes] = []
        for top in range(0, len(rows), step):
            part = rows[top : top + step]
            packed.append(self._compressed.add(filter_rows(part, self._row_above, self._pixel_bytes).data))
            self._row_above = part[-1:].copy()
        self._rows_missing -= len(rows)
        body = b"".join(packed)
        return make_chunk(b"IDAT", body) if body else b""

    def finish(self) -> bytes:
        """Return the remaining pixel data and the end; raises ValueError while rows are missing."""
        if self._rows_missing:
            raise ValueError(f"The PNG has {self.height} rows and {self._rows_missing} of them were never written.")
        return make_chunk(b"IDAT", self._compressed.finish()) + make_chunk(b"IEND", b"")

    def _to_bytes(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return rows as the file stores them, uint8 [h, bytes of a row], samples in network byte order."""
        channels = CHANNELS[self.mode]
        shaped = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
        sample = np.dtype(np.uint8 if self.depth == 8 else np.uint16)
        if pixels.dtype != sample or shaped.ndim != 3 or shaped.shape[1:] != (self.width, channels):
            raise ValueError(
                f"Rows of this PNG are {sample} [h, {self.width}, {channels}], not {pixels.dtype} {list(pixels.shape)}."
            )
        if len(shaped) > self._rows_missing:
            raise ValueError(f"{len(shaped)} rows arrived and {self._rows_missing} of {self.height} were missing.")
        stored = shaped if self.depth == 8 else shaped.astype(">u2")
        return np.ascontiguousarray(stored).view(np.uint8).reshape(len(shaped), self.width * self._pixel_bytes)
