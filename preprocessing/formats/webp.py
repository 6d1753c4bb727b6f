"""WebP (RFC 9649): read the container without decoding a pixel.

Keeps the canvas, the first frame and its alpha for the decoder. Profile, EXIF, XMP and further frames never reach it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from preprocessing.errors import UnreadableImageError
from preprocessing.formats.container import MAX_ICC_BYTES, MAX_PARTS, MAX_XMP_BYTES, Container

_ANIMATION_FLAG, _XMP_FLAG, _EXIF_FLAG, _ALPHA_FLAG = 0x02, 0x04, 0x08, 0x10
_STILL_CHUNKS = (b"ALPH", b"VP8 ", b"VP8L")
_ANIMATION_CHUNKS = (b"ANIM", b"ANMF")


def is_webp(data: bytes) -> bool:
    """Return whether these bytes begin with the signature of a WebP."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read_webp(data: bytes) -> Container:
    """Return the facts in the headers of a WebP.

    Raises UnreadableImageError when the size of the image is missing. Any other defect is returned in
    `Container.defect`, so that the caller can check the size first.
    """
    view = memoryview(data)
    chunks: dict[bytes, memoryview] = {}  # type -> the first chunk of that type, whole
    frames, reached = 0, 12
    for kind, chunk in _chunks(view):
        chunks.setdefault(kind, chunk)
        frames += kind == b"ANMF"
        reached += len(chunk)
    first_kind = data[12:16]
    width, height, has_alpha = _read_canvas(first_kind, data[20:30])
    flags = data[20] if first_kind == b"VP8X" else 0
    animated = bool(flags & _ANIMATION_FLAG)
    pixel_kinds = {b"ANMF"} if animated else {b"VP8 ", b"VP8L"}
    declared_bytes = 8 + int.from_bytes(view[4:8], "little")
    defect = ""
    if reached + 8 <= declared_bytes:  # writers leave up to a chunk's header too few or too many
        defect = (
            f"Truncated or corrupt WebP: its header declares {declared_bytes:,} bytes and its chunks end after "
            f"{reached:,} (at most {MAX_PARTS:,} chunks are read). Send the whole file."
        )
    elif not chunks.keys() & pixel_kinds:
        defect = "Invalid WebP: it holds no pixels. Send the original file."
    return Container(
        format="WEBP",
        width=width,
        height=height,
        mode="RGBA" if has_alpha else "RGB",
        frames=max(1, frames) if animated else 1,
        required_chunks=() if defect else _select_required(first_kind, chunks, animated=animated),
        # libwebp reads metadata only where the flags announce it; browsers turn no WebP.
        exif=(flags & _EXIF_FLAG and _body(chunks, b"EXIF")) or b"",
        xmp=(flags & _XMP_FLAG and _body(chunks, b"XMP ", MAX_XMP_BYTES)) or b"",
        is_exif_read_by_browsers=False,
        icc_profile=_body(chunks, b"ICCP", MAX_ICC_BYTES + 1),
        dropped=("the C2PA manifest",) if b"C2PA" in chunks else (),
        defect=defect,
    )


def _chunks(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (type, whole chunk with its padding) up to the first incomplete chunk, the declared end, or MAX_PARTS."""
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


def _read_canvas(first_kind: bytes, body: bytes) -> tuple[int, int, bool]:
    """Return (width, height, has alpha) from the first chunk: VP8X, VP8 or VP8L (RFC 9649 sections 2.5 to 2.7)."""
    if first_kind == b"VP8X" and len(body) == 10:
        return (
            1 + int.from_bytes(body[4:7], "little"),
            1 + int.from_bytes(body[7:10], "little"),
            bool(body[0] & _ALPHA_FLAG),
        )
    if first_kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) == 10:
        width, height = struct.unpack("<HH", body[6:10])
        if width & 0x3FFF and height & 0x3FFF:
            return width & 0x3FFF, height & 0x3FFF, False
    if first_kind == b"VP8L" and body[:1] == b"\x2f" and len(body) >= 5:
        (bits,) = struct.unpack("<I", body[1:5])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1)
    raise UnreadableImageError("Invalid WebP: no image size found. Send the whole file.")


def _select_required(
    first_kind: bytes, chunks: Mapping[bytes, memoryview], *, animated: bool
) -> list[bytes | memoryview]:
    """Return a RIFF header and the chunks that hold pixels; the flags of VP8X stop declaring what is left out."""
    selected: list[bytes | memoryview] = [chunks[first_kind]]
    if first_kind == b"VP8X":
        canvas = chunks[first_kind]
        flags = canvas[8] & (_ALPHA_FLAG | (_ANIMATION_FLAG if animated else 0))
        selected = [b"".join((canvas[:8], bytes((flags, 0, 0, 0)), canvas[12:]))]
        selected.extend(chunks[kind] for kind in (_ANIMATION_CHUNKS if animated else _STILL_CHUNKS) if kind in chunks)
    padded = [chunk if len(chunk) % 2 == 0 else b"".join((chunk, b"\0")) for chunk in selected]
    return [struct.pack("<4sI4s", b"RIFF", 4 + sum(map(len, padded)), b"WEBP"), *padded]


def _body(chunks: Mapping[bytes, memoryview], kind: bytes, max_bytes: int | None = None) -> bytes | None:
    if kind not in chunks:
        return None
    length = int.from_bytes(chunks[kind][4:8], "little")
    return bytes(chunks[kind][8 : 8 + length][:max_bytes])
