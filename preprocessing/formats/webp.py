"""Walks the chunks of a WebP (RFC 9649) without decoding a pixel.

The essence keeps the canvas, the first frame and its alpha; profile, EXIF, XMP and further frames never reach a
decoder.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from preprocessing.errors import UnreadableImageError
from preprocessing.formats.container import MAX_ICC_BYTES, MAX_PARTS, Container

_ANIMATION_FLAG, _ALPHA_FLAG = 0x02, 0x10
_STILL = (b"ALPH", b"VP8 ", b"VP8L")


def is_webp(data: bytes) -> bool:
    """Tell whether these bytes begin as a WebP does."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read_webp(data: bytes) -> Container:
    """Return the facts of a WebP; raises UnreadableImage when even its size cannot be known."""
    view = memoryview(data)
    first: dict[bytes, memoryview] = {}  # the first chunk of each kind, whole
    frames, reached = 0, 12
    for kind, chunk in _chunks(view):
        first.setdefault(kind, chunk)
        frames += kind == b"ANMF"
        reached += len(chunk)
    leader = data[12:16]
    width, height, alpha = _read_canvas(leader, data[20:30])
    animated = leader == b"VP8X" and bool(data[20] & _ANIMATION_FLAG)
    needed = {b"ANMF"} if animated else {b"VP8 ", b"VP8L"}
    announced = 8 + int.from_bytes(view[4:8], "little")
    flaw = ""
    if reached + 8 <= announced:  # less than a chunk's header missing or left over is a writer's slip
        flaw = (
            f"The WebP is truncated or corrupt: it announces {announced:,} bytes and its chunks hold together for "
            f"{reached:,} (in {MAX_PARTS:,} chunks at most). Send the whole file."
        )
    elif not first.keys() & needed:
        flaw = "The WebP holds no pixels."
    return Container(
        format="WEBP",
        width=width,
        height=height,
        mode="RGBA" if alpha else "RGB",
        frames=max(1, frames) if animated else 1,
        essence=() if flaw else _distil(leader, first, animated=animated),
        exif=_body(first, b"EXIF") or b"",
        icc_profile=_body(first, b"ICCP", MAX_ICC_BYTES + 1),
        flaw=flaw,
    )


def _chunks(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (type, whole chunk with its padding) up to the first incomplete chunk, the announced end, or the limit."""
    at, end = 12, min(len(view), 8 + int.from_bytes(view[4:8], "little"))
    for _ in range(MAX_PARTS):
        if at + 8 > end:
            return
        length = int.from_bytes(view[at + 4 : at + 8], "little")
        following = at + 8 + length + length % 2
        if at + 8 + length > end:
            return
        yield bytes(view[at : at + 4]), view[at : min(following, end)]
        at = following


def _read_canvas(leader: bytes, body: bytes) -> tuple[int, int, bool]:
    """Return (width, height, has alpha) from whichever of the three headers leads (RFC 9649 sections 2.5 to 2.7)."""
    if leader == b"VP8X" and len(body) == 10:
        return (
            1 + int.from_bytes(body[4:7], "little"),
            1 + int.from_bytes(body[7:10], "little"),
            bool(body[0] & _ALPHA_FLAG),
        )
    if leader == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) == 10:
        width, height = struct.unpack("<HH", body[6:10])
        if width & 0x3FFF and height & 0x3FFF:
            return width & 0x3FFF, height & 0x3FFF, False
    if leader == b"VP8L" and body[:1] == b"\x2f" and len(body) >= 5:
        (bits,) = struct.unpack("<I", body[1:5])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1)
    raise UnreadableImageError(
        f"The WebP goes astray before its size (its first chunk is {leader!r}). Send the whole file."
    )


def _distil(leader: bytes, first: Mapping[bytes, memoryview], *, animated: bool) -> list[bytes | memoryview]:
    kept: list[bytes | memoryview] = [first[leader]]
    if leader == b"VP8X":
        flags = first[leader][8] & (_ALPHA_FLAG | (_ANIMATION_FLAG if animated else 0))
        kept = [b"".join((first[leader][:8], bytes((flags, 0, 0, 0)), first[leader][12:]))]
        kept.extend(first[kind] for kind in ((b"ANIM", b"ANMF") if animated else _STILL) if kind in first)
    padded = [part if len(part) % 2 == 0 else b"".join((part, b"\0")) for part in kept]
    return [struct.pack("<4sI4s", b"RIFF", 4 + sum(map(len, padded)), b"WEBP"), *padded]


def _body(first: Mapping[bytes, memoryview], kind: bytes, max_bytes: int | None = None) -> bytes | None:
    if kind not in first:
        return None
    length = int.from_bytes(first[kind][4:8], "little")
    return bytes(first[kind][8 : 8 + length][:max_bytes])
