"""PNG (W3C PNG, third edition): reads the container and checks that all pixels are there.

`read_png` walks the chunks without inflating a pixel. It keeps IHDR, PLTE, the tRNS of a palette, IDAT and IEND for the
decoder, and verifies their checksums, because Pillow skips those of IDAT. `inflate_pixels` finds a pixel stream that
ends early. `preprocessing.formats.png_stream` writes PNGs.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from preprocessing.errors import UnreadableImageError
from preprocessing.formats.container import MAX_PARTS, Container
from preprocessing.formats.png_metadata import PngMetadata

_inflate: ModuleType = zlib
try:
    from zlib_ng import zlib_ng

    _inflate = zlib_ng  # counts pixels in two thirds of the time
except ImportError:  # no wheel for this machine
    pass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_SIDE = 2**31 - 1

# By colour type (section 11.2.1): Pillow's mode, channels, permitted bits per sample.
_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_COLOUR_TYPE_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_GREY_MODES = {1: "1", 16: "I;16"}
_PALETTE = 3
_MAX_PALETTE_BYTES = 768

_END_CHUNK = b"\0\0\0\0IEND\xaeB`\x82"
NO_END_NOTE = "The PNG has no valid end: the file was cut or damaged there. All its pixels were found."

# First column, first row, step right and step down of each pass (section 8.1).
_ONE_PASS = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

# Compressed bytes given to zlib at once. zlib returns a copy of what it did not use, so a whole IDAT chunk of 32 MiB
# would be copied over and over: quadratic time.
_PIECE_BYTES = 16_384
# Inflated bytes held at once: as many as a stored block of deflate can have (RFC 1951 section 3.2.4).
_MAX_INFLATED_BYTES = 65_535
# Begin of a zlib stream without compression.
_STORED_HEADER = b"\x78\x01"


def read_png(data: bytes) -> Container:
    """Return the facts in the headers of a PNG.

    Raises UnreadableImageError when the size of the image is missing or invalid. Any other defect is returned in
    `Container.defect`, so that the caller can check the size first.
    """
    width, height, depth, colour_type = _read_header(data)
    required_chunks: list[bytes | memoryview] = [SIGNATURE]
    metadata, defect = PngMetadata(), ""
    seen: set[bytes] = set()
    view = memoryview(data)
    parts = end = 0
    for kind, body, chunk in _chunks(view):
        parts, end = parts + 1, end + len(chunk)
        if kind in (b"IHDR", b"IDAT", b"IEND") or (colour_type == _PALETTE and kind in (b"PLTE", b"tRNS")):
            defect = defect or _find_chunk_defect(kind, body, chunk, colour_type, seen)
            required_chunks.append(chunk)
        elif kind != b"tRNS" or "A" not in _MODES[colour_type]:
            metadata.take(kind, body, chunk, is_before_pixels=b"IDAT" not in seen)
        seen.add(kind)
    metadata.finish()
    cut_chunk = _read_cut_chunk(view[len(SIGNATURE) + end :]) if b"IEND" not in seen else b""
    has_end = required_chunks[-1] == _END_CHUNK
    if not has_end:
        required_chunks = [chunk for chunk in required_chunks if chunk[4:8] != b"IEND"]
        required_chunks += [cut_chunk, _END_CHUNK] if cut_chunk else [_END_CHUNK]
    return Container(
        format="PNG",
        width=width,
        height=height,
        mode=_GREY_MODES.get(depth, "L") if colour_type == 0 else _MODES[colour_type],
        bits=depth,
        frames=metadata.frames,
        required_chunks=required_chunks,
        exif=metadata.exif,
        xmp=metadata.xmp,
        is_exif_read_by_browsers=metadata.is_exif_before_pixels,
        icc_profile=metadata.icc_profile,
        colour_chunks=metadata.colour_chunks,
        transparent=metadata.transparent,
        notes=() if has_end else (NO_END_NOTE,),
        dpi=metadata.dpi,
        iptc=metadata.iptc,
        texts=metadata.texts,
        dropped=tuple(sorted(metadata.dropped)),
        has_end=has_end,
        has_cut_pixels=bool(cut_chunk),
        defect=defect or _find_missing_chunk(len(data), has_pixels=b"IDAT" in seen or bool(cut_chunk), parts=parts),
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
        if not kind.isalpha():  # zeros, for example, in place of the rest of the file
            return
        yield kind, view[at + 8 : end - 4], view[at:end]
        if kind == b"IEND":
            return
        at = end


def _read_cut_chunk(rest: memoryview) -> bytes:
    """Return a whole IDAT chunk with the pixels of one that ends with the file; empty when there is none."""
    if bytes(rest[4:8]) != b"IDAT" or len(rest) >= 12 + int.from_bytes(rest[:4], "big"):
        return b""
    return make_chunk(b"IDAT", bytes(rest[8:]))


def _find_chunk_defect(kind: bytes, body: memoryview, chunk: memoryview, colour_type: int, seen: set[bytes]) -> str:
    """Return what is wrong with a chunk that the decoder needs, as a sentence; empty when nothing is."""
    if kind in (b"IHDR", b"PLTE", b"tRNS") and kind in seen:
        return f"Invalid PNG: it has a second {kind.decode()} chunk. Send the original file."
    if kind == b"PLTE" and (len(body) % 3 or not 3 <= len(body) <= _MAX_PALETTE_BYTES):
        return f"Invalid PNG: its palette has {len(body):,} bytes, not 1 to 256 times three. Send the original file."
    if kind == b"IDAT" and colour_type == _PALETTE and b"PLTE" not in seen:
        return "Invalid PNG: its pixels need a palette, and no palette comes before them. Send the original file."
    if kind != b"IEND" and zlib.crc32(chunk[4:-4]) != struct.unpack(">I", chunk[-4:])[0]:
        return f"Corrupt PNG: the checksum of its {kind.decode()} chunk is wrong. Send the file again."
    return ""


def _find_missing_chunk(n_bytes: int, *, has_pixels: bool, parts: int) -> str:
    if parts == MAX_PARTS:
        return (
            f"Truncated PNG: no end found in {n_bytes:,} bytes (at most {MAX_PARTS:,} chunks are read). "
            "Send the whole file."
        )
    if not has_pixels:
        return "Invalid PNG: it holds no pixels (no IDAT chunk). Send the whole file."
    return ""


def check_pixels(required_chunks: Sequence[bytes | memoryview], *, must_end: bool = False) -> None:
    """Raise the errors of `inflate_pixels` without keeping a piece."""
    for _ in inflate_pixels(required_chunks, must_end=must_end):
        pass


def inflate_pixels(required_chunks: Sequence[bytes | memoryview], *, must_end: bool = False) -> Iterator[bytes]:
    """Yield the filtered bytes of all rows in pieces, as many as the size in IHDR needs, and nothing behind them.

    Raises UnreadableImageError when the IDAT chunks hold fewer: Pillow reports nothing when a valid zlib stream ends
    before the last row, and the missing rows stay black. With `must_end`, the zlib stream must end too, with the right
    checksum: the last IDAT chunk was cut, and what follows its data may be padding. No error comes after the last
    piece.

    `required_chunks` is the signature, then whole chunks, IHDR first, of an image whose size is within the limits.
    Raises zlib.error when the stream is corrupt.
    """
    width, height, depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", required_chunks[1][8:21])
    pixel_bits = depth * _COLOUR_TYPE_CHANNELS[colour_type]
    expected = _count_expected_bytes(width, height, pixel_bits, _ADAM7 if interlace else _ONE_PASS)
    inflater, found = _inflate.decompressobj(), 0
    for packed in _pixel_data_pieces(required_chunks):
        rest: bytes | memoryview = packed
        # zlib is asked for the missing bytes only, as Pillow does, so an error after the last row is not raised.
        while inflated := _decompress(inflater, rest, min(_MAX_INFLATED_BYTES, expected - found)):
            found += len(inflated)
            if found == expected and must_end and not _ends(inflater):
                break
            yield inflated
            if found == expected:
                return
            rest = inflater.unconsumed_tail
        if inflater.eof or found == expected:
            break
    raise UnreadableImageError(
        f"Truncated or corrupt PNG: it holds {found:,} of the {expected:,} bytes "
        f"that {width} x {height} pixels need. Send the whole file."
    )


class InflatedPng:
    """A PNG as a file for Pillow, whose pixels are inflated here, by a faster zlib, and stored uncompressed.

    Pillow reads it once from begin to end. So the pixels are inflated once, although their bytes have to be counted.
    """

    def __init__(self, required_chunks: Sequence[bytes | memoryview], *, must_end: bool = False) -> None:
        """The arguments are those of `inflate_pixels`, whose errors `read` and `finish` raise."""
        kinds = [bytes(chunk[4:8]) for chunk in required_chunks]
        first = kinds.index(b"IDAT")
        self._head = b"".join((*required_chunks[:first], make_chunk(b"IDAT", _STORED_HEADER)))
        self._tail = b"".join(
            chunk for kind, chunk in zip(kinds[first:], required_chunks[first:], strict=True) if kind != b"IDAT"
        )
        self._pieces = inflate_pixels(required_chunks, must_end=must_end)
        self._at = 0
        self._pending = memoryview(self._head)

    def read(self, size: int) -> bytes:
        """Return this many bytes, fewer at the end of the file."""
        parts = []
        while size > 0:
            if not self._pending and not self._load():
                break
            part = self._pending[:size]
            self._pending = self._pending[len(part) :]
            parts.append(part)
            size -= len(part)
            self._at += len(part)
        return b"".join(parts)

    def tell(self) -> int:
        """Return the number of bytes read."""
        return self._at

    def seek(self, offset: int) -> int:
        """Go back to an offset before the pixels. Raises OSError when pixels were read."""
        if offset != self._at:
            if max(offset, self._at) > len(self._head):
                raise OSError("the pixels of this file are read once")
            self._at, self._pending = offset, memoryview(self._head)[offset:]
        return self._at

    def finish(self) -> None:
        """Inflate what Pillow has not read; raises the errors of `inflate_pixels`."""
        for _ in self._pieces:
            pass

    def _load(self) -> bool:
        """Make the next chunk, and return whether there is one. Pillow checks neither its CRC nor Adler-32."""
        piece = next(self._pieces, None)
        if piece is None:
            self._pending, self._tail = memoryview(self._tail), b""
            return bool(self._pending)
        length = len(piece)
        header = struct.pack(">I4s", length + 5, b"IDAT") + struct.pack("<BHH", 0, length, length ^ 0xFFFF)
        self._pending = memoryview(b"".join((header, piece, bytes(4))))
        return True


def _count_expected_bytes(width: int, height: int, pixel_bits: int, passes: Sequence[tuple[int, int, int, int]]) -> int:
    """Return the bytes of all rows, each with its filter byte; a pass without a column has no rows."""
    total = 0
    for left, top, right, down in passes:
        columns, rows = len(range(left, width, right)), len(range(top, height, down))
        total += rows * (1 + (columns * pixel_bits + 7) // 8) if columns else 0
    return total


def _decompress(inflater: Any, packed: bytes | memoryview, max_bytes: int) -> bytes:
    """Return at most this many bytes; raises zlib.error, which zlib-ng has a class of its own for."""
    try:
        inflated: bytes = inflater.decompress(packed, max_bytes)
    except _inflate.error as error:
        raise zlib.error(str(error)) from error
    return inflated


def _ends(inflater: Any) -> bool:
    """Return whether the stream ends where its reader has stopped."""
    try:
        return not _decompress(inflater, inflater.unconsumed_tail, 1) and bool(inflater.eof)
    except zlib.error:
        return False


def _pixel_data_pieces(required_chunks: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    for chunk in required_chunks[1:]:
        if chunk[4:8] == b"IDAT":
            for at in range(8, len(chunk) - 4, _PIECE_BYTES):
                yield chunk[at : min(at + _PIECE_BYTES, len(chunk) - 4)]


def make_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a whole chunk, with length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
