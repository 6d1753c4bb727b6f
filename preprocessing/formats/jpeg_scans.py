"""Scans of a JPEG: finds out whether a file that lacks its end, or was given one again, has all its blocks.

libjpeg fills in what a scan lacks, grey or without detail, and only warns; Pillow drops the warning. So the image is
decoded a second time with extra bits after the last scan (`has_all_blocks`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image as PilImage

FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SCAN = 0xDA
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_PROGRESSIVE_FRAME = 0xC2

# Bits added behind the last scan. A decoder that waits for a restart marker skips everything before one, so the bits
# are repeated after each of the eight markers. They reach past the blocks that 4:2:0 codes outside of the image:
# a block of these bits takes about 32 bytes with the tables of annex K.3, and a cut there was not seen with 16.
_EXTRA_BITS = b"\x55" * 16 + bytes(1 + 97 * at % 251 for at in range(512))
_EXTRA_SCAN_DATA = _EXTRA_BITS + b"".join(bytes((0xFF, 0xD0 + number)) + _EXTRA_BITS for number in range(8))
# Rows compared at once, so that no third full image is held.
_COMPARED_ROWS = 256

Segments = Sequence[bytes | memoryview]
Decode = Callable[[Segments], PilImage.Image]


def has_all_blocks(required_chunks: Segments, decoded: PilImage.Image, decode: Decode) -> bool:
    """Return whether the last scan has all its blocks; True for arithmetic coding, which cannot be checked.

    A decoder that has all blocks skips the extra bits. A decoder that lacks blocks reads the bits as blocks, and the
    pixels differ from `decoded`. Arithmetic coding may leave out the zeros at the end of a whole scan (section D.1.8),
    so that the comparison would tell nothing.

    Zeros at the end of the scan are valid bits too, and a decoder takes padding for the missing blocks of a scan that
    was cut. So the scan must be complete without them, or need them to the last two bytes: flat areas of an optimised
    file end so.
    """
    markers = _markers(required_chunks)
    if not any(marker in _HUFFMAN_FRAMES for marker in markers[1:]):
        return True
    last = max(at for at, marker in enumerate(markers) if marker == SCAN)
    scan = bytes(required_chunks[last])
    trimmed = trim_zeros(scan)
    zeros = len(scan) - len(trimmed)

    def is_complete(start: bytes) -> bool:
        # Fill bytes are valid before a marker, not before more bits.
        lengthened = start.rstrip(b"\xff") + _EXTRA_SCAN_DATA
        return have_same_pixels(decoded, decode([*required_chunks[:last], lengthened, *required_chunks[last + 1 :]]))

    if is_complete(trimmed):
        return True
    return zeros > 0 and is_complete(scan) and not is_complete(scan[: -min(zeros, 2)])


def have_same_pixels(one: PilImage.Image, other: PilImage.Image) -> bool:
    """Return whether two images of one size have the same pixels."""
    width, height = one.size
    bands = ((0, top, width, min(top + _COMPARED_ROWS, height)) for top in range(0, height, _COMPARED_ROWS))
    return all(np.array_equal(np.asarray(one.crop(band)), np.asarray(other.crop(band))) for band in bands)


def trim_zeros(scan: bytes | memoryview) -> bytes:
    """Return a scan without the zeros at its end. The zero that belongs to a data byte of 255 is kept."""
    trimmed = bytes(scan).rstrip(b"\0")
    return trimmed + b"\0" if trimmed.endswith(b"\xff") and len(scan) > len(trimmed) else trimmed


def trim_end(scan: bytes | memoryview) -> bytes:
    """Return a scan that reaches to the end of its file without the zeros that stand in place of the end marker.

    One byte of zeros may be data, because grey areas with the tables of annex K.3 end so. It can complete the very last
    block of a scan that was cut there and then padded: up to 8 x 8 pixels in the corner.
    """
    data, trimmed = bytes(scan), trim_zeros(scan)
    zeros = len(data) - len(trimmed)
    if zeros > 4:
        return trimmed + b"\0"
    return data[:-2] if zeros >= 2 else data


def can_be_complete(required_chunks: Segments) -> bool:
    """Return whether the headers of the scans cover every coefficient of every component, in full precision.

    False for arithmetic coding, whose last scan cannot be checked. Progressive files refine the coefficients scan by
    scan (section G.1.1.1), so one that ends between two scans lacks some.
    """
    markers = _markers(required_chunks)
    frame = next((at for at, marker in enumerate(markers) if marker in FRAMES), None)
    if frame is None or markers[frame] not in _HUFFMAN_FRAMES:
        return False
    header = bytes(required_chunks[frame][4:])
    if len(header) < 6:
        return False
    missing = {identifier: set(range(64)) for identifier in header[6 : 6 + 3 * header[5] : 3]}
    for marker, segment in zip(markers, required_chunks, strict=True):
        body = bytes(segment[4:40]) if marker == SCAN else b""
        if len(body) < 1 or len(body) < 4 + 2 * body[0]:
            continue
        first, last, precision = body[1 + 2 * body[0] : 4 + 2 * body[0]]
        if markers[frame] != _PROGRESSIVE_FRAME:
            first, last, precision = 0, 63, 0
        if precision & 0x0F == 0:
            for identifier in body[1 : 1 + 2 * body[0] : 2]:
                missing.get(identifier, set()).difference_update(range(first, last + 1))
    return not any(missing.values())


def _markers(required_chunks: Segments) -> list[int]:
    return [segment[1] if len(segment) > 1 else 0 for segment in required_chunks]
