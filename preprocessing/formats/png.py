"""Walks the chunks of a PNG (W3C PNG, third edition, sections 5 and 11) without inflating a pixel.

The essence keeps IHDR, PLTE, a palette's tRNS, IDAT and IEND; checksums of what is kept are verified here, because
Pillow skips those of IDAT.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from preprocessing.errors import UnreadableImageError
from preprocessing.formats.container import MAX_ICC_BYTES, MAX_PARTS, Container

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_GREY_MODES = {1: "1", 16: "I;16"}
_PALETTE = 3
_MAX_PALETTE_BYTES = 768
_MAX_SIDE = 2**31 - 1


def read_png(data: bytes) -> Container:
    """Return the facts of a PNG; raises UnreadableImage when even its size cannot be known."""
    width, height, depth, colour = _read_header(data)
    essence: list[bytes | memoryview] = [SIGNATURE]
    frames, exif, icc_profile, transparent, flaw = 1, b"", None, b"", ""
    seen = set()
    view = memoryview(data)
    for kind, body, chunk in _chunks(view):
        if kind in (b"IHDR", b"IDAT", b"IEND") or (colour == _PALETTE and kind in (b"PLTE", b"tRNS")):
            if kind in (b"IHDR", b"PLTE", b"tRNS") and kind in seen:
                flaw = flaw or f"The PNG has a second {kind.decode()} chunk: it is corrupt."
            if kind == b"PLTE" and (len(body) % 3 or not 3 <= len(body) <= _MAX_PALETTE_BYTES):
                flaw = flaw or f"The PNG's palette has {len(body):,} bytes, not 1 to 256 times three: it is corrupt."
            if kind == b"IDAT" and colour == _PALETTE and b"PLTE" not in seen:
                flaw = flaw or "The PNG's pixels need a palette and none comes before them: it is corrupt."
            if zlib.crc32(chunk[4:-4]) != struct.unpack(">I", chunk[-4:])[0]:
                flaw = (
                    flaw or f"The checksum of the PNG's {kind.decode()} chunk is wrong: it is corrupt, send it again."
                )
            essence.append(chunk)
        elif kind == b"tRNS" and "A" not in _MODES[colour]:
            transparent = bytes(body[:6])
        elif kind == b"acTL" and len(body) == 8:
            frames = max(1, struct.unpack(">I", body[:4])[0])
        elif kind == b"eXIf" and not exif:
            exif = bytes(body)
        elif kind == b"iCCP" and icc_profile is None:
            icc_profile = _inflate_profile(bytes(body))
        seen.add(kind)
    flaw = flaw or _find_gap(view, seen)
    mode = _GREY_MODES.get(depth, "L") if colour == 0 else _MODES[colour]
    return Container(
        format="PNG",
        width=width,
        height=height,
        mode=mode,
        bits=depth,
        frames=frames,
        essence=essence,
        exif=exif,
        icc_profile=icc_profile,
        transparent=transparent,
        flaw=flaw,
    )


def _read_header(data: bytes) -> tuple[int, int, int, int]:
    if len(data) < 33 or data[8:16] != b"\0\0\0\rIHDR":
        raise UnreadableImageError(
            f"The PNG ends or goes astray before its size: {len(data)} bytes. Send the whole file."
        )
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE):
        raise UnreadableImageError(f"The PNG announces {width} x {height} pixels, which is no image.")
    if depth not in _DEPTHS.get(colour, ()):
        raise UnreadableImageError(f"The PNG announces colour type {colour} with {depth} bits, which no PNG has.")
    return width, height, depth, colour


def _chunks(view: memoryview) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Yield (type, body, whole chunk) up to IEND, the first incomplete chunk, or the limit of parts."""
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


def _find_gap(view: memoryview, seen: set[bytes]) -> str:
    if b"IEND" not in seen:
        return (
            f"The PNG has no end within its {len(view):,} bytes (and {MAX_PARTS:,} chunks at most): "
            "it is truncated, send the whole file."
        )
    if b"IDAT" not in seen:
        return "The PNG holds no pixels (no IDAT chunk)."
    return ""


def _inflate_profile(body: bytes) -> bytes:
    """Return the profile of an iCCP chunk, at most one byte more than is kept, however far it would inflate."""
    _, _, packed = body.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], MAX_ICC_BYTES + 1)
    except zlib.error:
        return b""
