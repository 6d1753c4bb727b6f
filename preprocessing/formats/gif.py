"""GIF (GIF89a specification): read the blocks without decoding a pixel.

The decoder gets the file up to the end of the first frame only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from preprocessing.errors import UnreadableImageError
from preprocessing.formats.container import MAX_PARTS, MAX_XMP_BYTES, Container
from preprocessing.metadata.texts import COMMENT, Texts

SIGNATURES = (b"GIF87a", b"GIF89a")

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, b"\x3b"
# Values of the aspect ratio in the header that mean square pixels: none, and (49 + 15) / 64.
_SQUARE = (0, 49)
_GRAPHIC_CONTROL, _COMMENT, _APPLICATION = 0xF9, 0xFE, 0xFF
_XMP = b"XMP DataXMP"
# What no result has, by the name and code of its application extension. Browsers ignore the profile too.
_DROPPED = {b"C2PA_GIF\1\0\0": "the C2PA manifest", b"ICCRGBG1012": "the colour profile"}
# Follows the packet: 1, then the numbers from 255 down, so that readers of sub-blocks find an end wherever they are.
_XMP_TRAILER = b"\x01\xff\xfe\xfd"
# Sub-blocks walked in one file; encoders fill them with 255 bytes, so 67 MB of normal GIF pass. 0.1 s here.
_MAX_SUB_BLOCKS = 4 * MAX_PARTS


@dataclass(eq=False)
class _Blocks:
    """What the blocks of one GIF say."""

    frames: int = 0
    first_end: int = 0
    """Offset behind the first frame; 0 while it is incomplete."""
    frame: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Left, top, width and height of the first frame."""
    is_transparent: bool = False
    """Whether the first frame has a transparent colour."""
    texts: Texts = field(default_factory=Texts)
    xmp: bytes = b""
    dropped: set[str] = field(default_factory=set)
    """What no result has, in words."""


def read_gif(data: bytes) -> Container:
    """Return the facts in the headers of a GIF.

    Raises UnreadableImageError when the size of the image is missing. Any other defect is returned in
    `Container.defect`, so that the caller can check the size first.
    """
    if len(data) < 13:
        raise UnreadableImageError("Invalid GIF: no image size found. Send the whole file.")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    blocks = _walk(data, 13 + _palette_bytes(flags))
    left, top, frame_width, frame_height = blocks.frame
    width, height = max(width, left + frame_width), max(height, top + frame_height)  # as Pillow and browsers do
    if width < 1 or height < 1:
        raise UnreadableImageError("Invalid GIF: no image size found. Send the whole file.")
    covers_all = blocks.frame == (0, 0, width, height)
    return Container(
        format="GIF",
        width=width,
        height=height,
        mode="P" if covers_all and not blocks.is_transparent else "RGBA",
        required_chunks=(memoryview(data)[: blocks.first_end], _TRAILER),
        frames=max(1, blocks.frames),
        xmp=blocks.xmp,
        is_exif_read_by_browsers=False,
        texts=blocks.texts,
        dropped=tuple(sorted(blocks.dropped | ({"the shape of the pixels"} if data[12] not in _SQUARE else set()))),
        defect="" if blocks.first_end else "Truncated GIF: its first frame is incomplete. Send the whole file.",
    )


def _palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _walk(data: bytes, at: int) -> _Blocks:
    """Walk the blocks up to the trailer, the first incomplete one, or the maximum of sub-blocks."""
    blocks, left = _Blocks(), _MAX_SUB_BLOCKS
    while at < len(data) and left > 0:
        kind = data[at]
        if kind == _EXTENSION:
            label, start = data[at + 1 : at + 2], at + 2
            end, left = _skip_sub_blocks(data, start, left)
            if not end:
                break
            _take_extension(blocks, label[0], data[start:end])
        elif kind == _IMAGE and at + 10 <= len(data):
            *frame, flags = struct.unpack_from("<HHHHB", data, at + 1)
            if not blocks.frames:
                blocks.frame = (frame[0], frame[1], frame[2], frame[3])
            end, left = _skip_sub_blocks(data, at + 10 + _palette_bytes(flags) + 1, left)
            if not end:
                break
            blocks.frames += 1
            blocks.first_end = blocks.first_end or end
        else:  # the trailer, or invalid bytes
            break
        at = end
    return blocks


def _take_extension(blocks: _Blocks, label: int, body: bytes) -> None:
    """Read an extension, given its sub-blocks with their lengths."""
    if label == _GRAPHIC_CONTROL and not blocks.frames:
        blocks.is_transparent = len(body) > 1 and bool(body[1] & 1)
    elif label == _COMMENT:
        blocks.texts.take(COMMENT, b"".join(_sub_blocks(body)) if blocks.texts.bytes_left else None)
    elif label == _APPLICATION and body[1:12] == _XMP:  # the packet itself, not in sub-blocks
        blocks.xmp = body[12:][:MAX_XMP_BYTES].partition(_XMP_TRAILER)[0]
    elif label == _APPLICATION and body[1:12] in _DROPPED:
        blocks.dropped.add(_DROPPED[body[1:12]])


def _sub_blocks(body: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        yield body[at + 1 : at + 1 + body[at]]
        at += 1 + body[at]


def _skip_sub_blocks(data: bytes, at: int, left: int) -> tuple[int, int]:
    """Return the offset behind the sub-blocks that begin here, 0 if they have no end, and how many are left to walk."""
    while at < len(data) and left > 0:
        left -= 1
        size = data[at]
        at += 1 + size
        if not size:
            return at, left
    return 0, left
