"""PNG (W3C PNG, third edition): read the container, check that all pixels are there, write a file band by band.

`read_png` walks the chunks without inflating a pixel. It keeps IHDR, PLTE, the tRNS of a palette, IDAT and IEND for the
decoder, and verifies their checksums, because Pillow skips those of IDAT. `check_pixels` finds a pixel stream that ends
early. `PngStream` writes a PNG as its rows arrive.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from preprocessing.errors import UnreadableImageError
from preprocessing.formats.container import MAX_ICC_BYTES, MAX_PARTS, Container
from preprocessing.image import Pixels

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_SIDE = 2**31 - 1
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}

# By colour type (section 11.2.1): Pillow's mode, channels, permitted bits per sample.
_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_COLOUR_TYPE_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_GREY_MODES = {1: "1", 16: "I;16"}
_COLOUR_TYPES = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}
_PALETTE = 3
_MAX_PALETTE_BYTES = 768
_FILTER_UP = 2

# First column, first row, step right and step down of each pass (section 8.1).
_ONE_PASS = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

# Compressed bytes given to zlib at once. zlib returns a copy of what it did not use, so a whole IDAT chunk of 32 MiB
# would be copied over and over: quadratic time.
_PIECE_BYTES = 16_384
# Inflated bytes held at once while they are counted.
_MAX_INFLATED_BYTES = 262_144


def read_png(data: bytes) -> Container:
    """Return the facts in the headers of a PNG.

    Raises UnreadableImageError when the size of the image is missing or invalid. Any other defect is returned in
    `Container.defect`, so that the caller can check the size first.
    """
    width, height, depth, colour_type = _read_header(data)
    required_chunks: list[bytes | memoryview] = [SIGNATURE]
    frames, exif, icc_profile, transparent, defect = 1, b"", None, b"", ""
    seen: set[bytes] = set()
    view = memoryview(data)
    for kind, body, chunk in _chunks(view):
        if kind in (b"IHDR", b"IDAT", b"IEND") or (colour_type == _PALETTE and kind in (b"PLTE", b"tRNS")):
            defect = defect or _find_chunk_defect(kind, body, chunk, colour_type, seen)
            required_chunks.append(chunk)
        elif kind == b"tRNS" and "A" not in _MODES[colour_type]:
            transparent = bytes(body[:6])
        elif kind == b"acTL" and len(body) == 8:
            frames = max(1, struct.unpack(">I", body[:4])[0])
        elif kind == b"eXIf" and not exif:
            exif = bytes(body)
        elif kind == b"iCCP" and icc_profile is None:
            icc_profile = _inflate_profile(bytes(body))
        seen.add(kind)
    return Container(
        format="PNG",
        width=width,
        height=height,
        mode=_GREY_MODES.get(depth, "L") if colour_type == 0 else _MODES[colour_type],
        bits=depth,
        frames=frames,
        required_chunks=required_chunks,
        exif=exif,
        icc_profile=icc_profile,
        transparent=transparent,
        defect=defect or _find_missing_chunk(view, seen),
    )


def _read_header(data: bytes) -> tuple[int, int, int, int]:
    """Return (width, height, bits per sample, colour type) from IHDR."""
    if len(data) < 33 or data[8:16] != b"\0\0\0\rIHDR":
        raise UnreadableImageError(
            f"Invalid PNG: no image size found in its first chunk ({len(data):,} bytes received). Send the whole file."
        )
    width, height, depth, colour_type = struct.unpack_from(">IIBB", data, 16)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise UnreadableImageError(
            f"Invalid PNG: its header has a size of {width} x {height} pixels; a side must be 1 to {MAX_SIDE:,}."
        )
    if depth not in _DEPTHS.get(colour_type, ()):
        raise UnreadableImageError(
            f"Invalid PNG: its header combines colour type {colour_type} with {depth} bits per sample. "
            "Save it again as a PNG."
        )
    return width, height, depth, colour_type


def _chunks(view: memoryview) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Yield (type, body, whole chunk) up to IEND, the first incomplete chunk, or MAX_PARTS chunks."""
    at = len(SIGNATURE)
    for _ in range(MAX_PARTS):
        if at + 12 > len(view):
            return
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        if end > len(view):
            return
        kind = bytes(view[at + 4 : at + 8])
        yield kind, view[at + 8 : end - 4], view[at:end]
        if kind == b"IEND":
            return
        at = end


def _find_chunk_defect(kind: bytes, body: memoryview, chunk: memoryview, colour_type: int, seen: set[bytes]) -> str:
    """Return what is wrong with a chunk that the decoder needs, as a sentence; empty when nothing is."""
    if kind in (b"IHDR", b"PLTE", b"tRNS") and kind in seen:
        return f"Invalid PNG: it has a second {kind.decode()} chunk. Send the original file."
    if kind == b"PLTE" and (len(body) % 3 or not 3 <= len(body) <= _MAX_PALETTE_BYTES):
        return f"Invalid PNG: its palette has {len(body):,} bytes, not 1 to 256 times three. Send the original file."
    if kind == b"IDAT" and colour_type == _PALETTE and b"PLTE" not in seen:
        return "Invalid PNG: its pixels need a palette, and no palette comes before them. Send the original file."
    if zlib.crc32(chunk[4:-4]) != struct.unpack(">I", chunk[-4:])[0]:
        return f"Corrupt PNG: the checksum of its {kind.decode()} chunk is wrong. Send the file again."
    return ""


def _find_missing_chunk(view: memoryview, seen: set[bytes]) -> str:
    if b"IEND" not in seen:
        return (
            f"Truncated PNG: no end found in {len(view):,} bytes (at most {MAX_PARTS:,} chunks are read). "
            "Send the whole file."
        )
    if b"IDAT" not in seen:
        return "Invalid PNG: it holds no pixels (no IDAT chunk). Send the original file."
    return ""


def _inflate_profile(body: bytes) -> bytes:
    """Return the profile of an iCCP chunk, cut after MAX_ICC_BYTES + 1 bytes however large it would inflate."""
    _, _, packed = body.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], MAX_ICC_BYTES + 1)
    except zlib.error:
        return b""


def check_pixels(required_chunks: Sequence[bytes | memoryview]) -> None:
    """Raise UnreadableImageError when the IDAT chunks hold fewer bytes than the size in IHDR needs.

    Pillow reports nothing when a valid zlib stream ends before the last row: the missing rows stay black. So the bytes
    are counted before Pillow decodes. They are inflated in pieces, and no piece is kept. Data after the last row is
    never inflated.

    `required_chunks` is the signature, then whole chunks, IHDR first, of an image whose size is within the limits.
    Raises zlib.error when the stream is corrupt.
    """
    width, height, depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", required_chunks[1][8:21])
    pixel_bits = depth * _COLOUR_TYPE_CHANNELS[colour_type]
    expected = _count_expected_bytes(width, height, pixel_bits, _ADAM7 if interlace else _ONE_PASS)
    found = _count_inflated_bytes(required_chunks, expected)
    if found < expected:
        raise UnreadableImageError(
            f"Truncated or corrupt PNG: it holds {found:,} of the {expected:,} bytes "
            f"that {width} x {height} pixels need. Send the whole file."
        )


def _count_expected_bytes(width: int, height: int, pixel_bits: int, passes: Sequence[tuple[int, int, int, int]]) -> int:
    """Return the bytes of all rows, each with its filter byte; a pass without a column has no rows."""
    total = 0
    for left, top, right, down in passes:
        columns, rows = len(range(left, width, right)), len(range(top, height, down))
        total += rows * (1 + (columns * pixel_bits + 7) // 8) if columns else 0
    return total


def _count_inflated_bytes(required_chunks: Sequence[bytes | memoryview], limit: int) -> int:
    """Return how many bytes the IDAT chunks inflate to; counting stops at `limit`."""
    inflater, found = zlib.decompressobj(), 0
    for packed in _pixel_data_pieces(required_chunks):
        rest: bytes | memoryview = packed
        # zlib is asked for the missing bytes only, as Pillow does, so an error after the last row is not raised.
        while inflated := inflater.decompress(rest, min(_MAX_INFLATED_BYTES, limit - found)):
            found += len(inflated)
            if found == limit:
                return found
            rest = inflater.unconsumed_tail
        if inflater.eof:
            break
    return found


def _pixel_data_pieces(required_chunks: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    for chunk in required_chunks[1:]:
        if chunk[4:8] == b"IDAT":
            for at in range(8, len(chunk) - 4, _PIECE_BYTES):
                yield chunk[at : min(at + _PIECE_BYTES, len(chunk) - 4)]


class PngStream:
    """A PNG of known size, written as its rows arrive: `header`, then `rows` once per band, then `finish`.

    Memory follows the band, not the image. zlib runs at level 1 with the Up filter on every row: half the time of
    Pillow at level 1 for 6 % more bytes. docs/explanation/codec.md has the figures, also of the other filters.
    """

    def __init__(self, width: int, height: int, mode: str, icc_profile: bytes | None = None) -> None:
        """Raises ValueError for a mode or a size that cannot be written."""
        if mode not in CHANNELS:
            raise ValueError(f"A PNG is written in one of the modes {', '.join(CHANNELS)}, not {mode!r}.")
        if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
            raise ValueError(f"A PNG has 1 to {MAX_SIDE} pixels per side, not {width} x {height}.")
        self.width, self.height, self.mode, self.icc_profile = width, height, mode, icc_profile
        self._rows_missing = height
        self._row_above = np.zeros(width * CHANNELS[mode], np.uint8)
        self._compressor = zlib.compressobj(1)

    def header(self) -> bytes:
        """Return everything before the pixels: signature, size, profile."""
        size = struct.pack(">IIBBBBB", self.width, self.height, 8, _COLOUR_TYPES[self.mode], 0, 0, 0)
        profile = b""
        if self.icc_profile is not None:
            profile = _make_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(self.icc_profile, 1))
        return SIGNATURE + _make_chunk(b"IHDR", size) + profile

    def rows(self, pixels: Pixels) -> bytes:
        """Return the chunk of the next rows, [h, width, channels] uint8 ([h, width] in mode L); may be empty."""
        flat = self._check_rows(pixels)
        if not len(flat):
            return b""
        filtered = np.empty((len(flat), 1 + flat.shape[1]), np.uint8)
        filtered[:, 0] = _FILTER_UP
        np.subtract(flat[0], self._row_above, out=filtered[0, 1:])
        np.subtract(flat[1:], flat[:-1], out=filtered[1:, 1:])
        self._row_above = flat[-1].copy()
        self._rows_missing -= len(flat)
        packed = self._compressor.compress(filtered.data)
        return _make_chunk(b"IDAT", packed) if packed else b""

    def finish(self) -> bytes:
        """Return the remaining pixel data and the end; raises ValueError while rows are missing."""
        if self._rows_missing:
            raise ValueError(f"The PNG has {self.height} rows and {self._rows_missing} of them were never written.")
        return _make_chunk(b"IDAT", self._compressor.flush()) + _make_chunk(b"IEND", b"")

    def _check_rows(self, pixels: Pixels) -> Pixels:
        channels = CHANNELS[self.mode]
        shaped = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
        if pixels.dtype != np.uint8 or shaped.ndim != 3 or shaped.shape[1:] != (self.width, channels):
            raise ValueError(
                f"Rows of this PNG are uint8 [h, {self.width}, {channels}], not {pixels.dtype} {list(pixels.shape)}."
            )
        if len(shaped) > self._rows_missing:
            raise ValueError(f"{len(shaped)} rows arrived and {self._rows_missing} of {self.height} were missing.")
        return np.ascontiguousarray(shaped).reshape(len(shaped), self.width * channels)


def _make_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
