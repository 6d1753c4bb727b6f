"""JPEG (ITU-T T.81): read the container, check that the last scan is complete, write a file strip by strip.

`read_jpeg` walks the segments (annex B) without decoding a coefficient. It keeps tables, frame and scans for the
decoder, and of the application segments only JFIF and Adobe, which say how colours are stored. Thumbnails, EXIF, XMP,
comments and data after the end marker (MPO, motion photos) never reach a decoder. `lengthen_last_scan` helps to find a
scan that was cut. `JpegStream` writes a JPEG as its rows arrive.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image as PilImage

from preprocessing.errors import UnreadableImageError
from preprocessing.formats.container import MAX_ICC_BYTES, MAX_PARTS, Container
from preprocessing.image import Pixels

SIGNATURE = b"\xff\xd8\xff"
# Maximum number of scans in a JPEG; libjpeg's default script has 10. Each scan walks all coefficients again:
# 17 ms at 4096 x 4096 here, so 500 near-empty scans (115 kB) took 8.7 s. No limit of bytes or pixels stops that.
MAX_SCANS = 100
# Rows encoded at once: eight rows of 8 x 8 blocks. There are eight restart markers, so each strip begins with number 0.
STRIP_ROWS = 64

_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_CHANNELS = {"L": 1, "RGB": 3}

# Markers (table B.1).
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BASELINE_FRAME = 0xC0
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_TABLES = {0xC4, 0xCC, 0xDB, 0xDC, 0xDD}
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # TEM, RSTn and SOI: no length follows
_SCAN, _END = 0xDA, 0xD9
_END_BYTES = b"\xff\xd9"
_LAST_RESTART_BYTES = b"\xff\xd7"
# A leading literal lets the search run at 2.8 GB/s here; with \xff+ for fill bytes it ran at 0.1 GB/s.
_MARKER = re.compile(rb"\xff([\x01-\xfe])")
_MARKER_AFTER_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither byte stuffing nor a restart marker

_EXIF, _ICC, _JFIF, _ADOBE = b"Exif\0\0", b"ICC_PROFILE\0", b"JFIF\0", b"Adobe"

# Bits added behind the last scan. A decoder that waits for a restart marker skips everything before one, so the bits
# are repeated after each of the eight markers.
_EXTRA_BITS = b"\x55" * 16
_EXTRA_SCAN_DATA = _EXTRA_BITS + b"".join(bytes((0xFF, 0xD0 + number)) + _EXTRA_BITS for number in range(8))
# Sum of the luminance table of annex K.1, which is quality 50.
_ANNEX_K_SUM = 3689
# Rows compared at once, so that no third full image is held.
_COMPARED_ROWS = 256


def read_jpeg(data: bytes) -> Container:
    """Return the facts in the headers of a JPEG.

    Raises UnreadableImageError when the size of the image is missing or invalid. Any other defect is returned in
    `Container.defect`, so that the caller can check the size first.
    """
    view = memoryview(data)
    required_chunks: list[bytes | memoryview] = [data[:2]]
    frame, exif, defect, scans, ended = b"", b"", "", 0, False
    icc_parts: dict[int, bytes] = {}
    for marker, body, segment in _segments(data, view):
        if marker in _FRAMES:
            if frame:
                defect = defect or "Invalid JPEG: it has a second frame header. Send the original file."
            frame = frame or bytes(body)
        elif marker == 0xE1 and body[:6] == _EXIF and not exif:
            exif = bytes(body)
        elif marker == 0xE2 and body[:12] == _ICC and len(body) > 14:
            icc_parts.setdefault(body[12], bytes(body[14:]))
        scans += marker == _SCAN
        ended = ended or marker == _END
        if _is_required(marker, body):
            required_chunks.append(segment)
    width, height, components = _read_frame(frame, len(data))
    if frame[0] != 8:
        defect = (
            defect or f"This JPEG has {frame[0]} bits per sample; only 8 are supported. Save it as a baseline JPEG."
        )
    return Container(
        format="JPEG",
        width=width,
        height=height,
        mode=_MODES[components],
        required_chunks=required_chunks,
        exif=exif,
        icc_profile=_join_profile(icc_parts),
        defect=defect or _find_scan_defect(len(data), scans, ended=ended),
    )


def read_quality(container: Container) -> int | None:
    """Return the quality of a JPEG, 1 to 100, estimated from its first quantisation table; None without a valid one.

    The table is compared with that of annex K.1, which libjpeg scales by the quality. Cameras have tables of their own,
    so the estimate is rough there.
    """
    if container.format != "JPEG":
        return None
    for chunk in container.required_chunks:
        if chunk[:2] != b"\xff\xdb" or len(chunk) < 5:
            continue
        kind = ">u2" if chunk[4] >> 4 else ">u1"
        body = bytes(chunk[5 : 5 + 64 * np.dtype(kind).itemsize])
        if len(body) == 64 * np.dtype(kind).itemsize:
            scale = 100 * int(np.frombuffer(body, kind).sum(dtype=np.int64)) / _ANNEX_K_SUM
            quality = 5000 / scale if scale > 100 else (200 - scale) / 2
            return min(100, max(1, round(quality)))
    return None


def _read_frame(frame: bytes, n_bytes: int) -> tuple[int, int, int]:
    """Return (width, height, components) from the body of the frame header (section B.2.2)."""
    if len(frame) < 6:
        raise UnreadableImageError(f"Invalid JPEG: no image size found in {n_bytes:,} bytes. Send the whole file.")
    height, width, components = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big"), frame[5]
    if not (width and height):
        raise UnreadableImageError(
            f"Invalid JPEG: its header has a size of {width} x {height} pixels. Save it again as a JPEG."
        )
    if components not in _MODES:
        raise UnreadableImageError(
            f"This JPEG has {components} colour components; 1, 3 or 4 are supported. Save it as RGB."
        )
    return width, height, components


def _segments(data: bytes, view: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield (marker, body, whole segment) up to the end marker, the first incomplete segment, or MAX_PARTS segments.

    The segment of a scan reaches to the next marker, so it includes the entropy-coded data.
    """
    at = 2
    for _ in range(MAX_PARTS):
        found = _MARKER.search(data, at)
        if found is None:
            return
        marker, start, body_start = found[1][0], found.end() - 2, found.end() + 2
        if marker == _END:
            yield marker, view[0:0], view[start : found.end()]
            return
        if marker in _STANDALONE:
            at = found.end()
            continue
        at = found.end() + int.from_bytes(view[found.end() : body_start], "big")
        if at > len(data) or at < body_start:
            return
        body = view[body_start:at]
        if marker == _SCAN:
            following = _MARKER_AFTER_SCAN.search(data, at)
            at = following.start() if following else len(data)
        yield marker, body, view[start:at]


def _is_required(marker: int, body: memoryview) -> bool:
    if marker in _FRAMES or marker in _TABLES or marker in (_SCAN, _END):
        return True
    return (marker == 0xE0 and body[:5] == _JFIF) or (marker == 0xEE and body[:5] == _ADOBE)


def _find_scan_defect(n_bytes: int, scans: int, *, ended: bool) -> str:
    if scans > MAX_SCANS:
        return f"This JPEG has {scans:,} scans; {MAX_SCANS} is the limit. Save it again as a baseline JPEG."
    if not ended:
        return f"Truncated JPEG: no end marker found in {n_bytes:,} bytes. Send the whole file."
    if not scans:
        return "Invalid JPEG: it holds no pixels (no scan). Send the original file."
    return ""


def _join_profile(parts: dict[int, bytes]) -> bytes | None:
    """Join the numbered parts of a profile (ICC.1:2022 annex B.4), cut after MAX_ICC_BYTES + 1 bytes."""
    if not parts:
        return None
    return b"".join(parts[number] for number in sorted(parts))[: MAX_ICC_BYTES + 1]


def lengthen_last_scan(required_chunks: Sequence[bytes | memoryview]) -> list[bytes | memoryview] | None:
    """Return the segments with extra bits at the end of the last scan, to find out whether that scan was cut.

    libjpeg fills in what a scan lacks (grey, or no detail) and only warns; Pillow drops the warning. A decoder that has
    all blocks of the scan skips the extra bits. A decoder that lacks blocks reads the bits as blocks, and the pixels
    differ: compare both results with `have_same_pixels`.

    Returns None for arithmetic coding, which may leave out the zeros at the end of a whole scan (section D.1.8), so
    that the comparison would tell nothing.
    """
    markers = [segment[1] if len(segment) > 1 else 0 for segment in required_chunks]
    if not any(marker in _HUFFMAN_FRAMES for marker in markers[1:]):
        return None
    last = max(at for at, marker in enumerate(markers) if marker == _SCAN)
    scan = bytes(required_chunks[last]).rstrip(b"\xff")  # fill bytes are valid before a marker, not before more bits
    return [*required_chunks[:last], scan + _EXTRA_SCAN_DATA, *required_chunks[last + 1 :]]


def have_same_pixels(one: PilImage.Image, other: PilImage.Image) -> bool:
    """Return whether two images of one size have the same pixels."""
    width, height = one.size
    bands = ((0, top, width, min(top + _COMPARED_ROWS, height)) for top in range(0, height, _COMPARED_ROWS))
    return all(np.array_equal(np.asarray(one.crop(band)), np.asarray(other.crop(band))) for band in bands)


class JpegStream:
    """A JPEG of known size (4:4:4, baseline), written as its rows arrive: `rows` once per band, then `finish`.

    Pillow encodes whole images only. But a scan may be cut at restart markers (section E.1.4): the data between two of
    them depends on nothing before. So each strip is encoded as a JPEG of its own, with a restart marker after every row
    of blocks, and the scans are joined under the headers of the first. The pixels are those of one call to Pillow; the
    file is a few bytes longer per row of blocks. Memory follows the strip, not the image.
    """

    def __init__(self, width: int, height: int, mode: str, quality: int, icc_profile: bytes | None = None) -> None:
        """`mode` is L or RGB."""
        self.width, self.height, self.mode, self.quality, self.icc_profile = width, height, mode, quality, icc_profile
        self._pending = np.empty((0, width, _CHANNELS[mode]), np.uint8)  # rows that do not fill a strip yet
        self._rows_written = 0

    def rows(self, pixels: Pixels) -> bytes:
        """Return what the next rows, [h, width, channels] uint8, add to the file; empty while no strip is full."""
        parts = []
        for top in range(0, len(pixels), STRIP_ROWS):
            rows = np.concatenate((self._pending, pixels[top : top + STRIP_ROWS]))
            if len(rows) >= STRIP_ROWS:
                parts.append(self._encode_strip(rows[:STRIP_ROWS]))
                rows = rows[STRIP_ROWS:]
            self._pending = rows
        return b"".join(parts)

    def finish(self) -> bytes:
        """Return the last strip and the end marker; raises ValueError unless `height` rows were written."""
        last = self._encode_strip(self._pending) if len(self._pending) else b""
        if self._rows_written != self.height:
            raise ValueError(f"The JPEG has {self.height} rows and {self._rows_written} of them were written.")
        return last + _END_BYTES

    def _encode_strip(self, rows: Pixels) -> bytes:
        is_first = not self._rows_written
        self._rows_written += len(rows)
        keywords: dict[str, Any] = {"icc_profile": self.icc_profile} if is_first and self.icc_profile else {}
        target = BytesIO()
        strip = PilImage.fromarray(rows[..., 0] if self.mode == "L" else rows)
        strip.save(target, "JPEG", quality=self.quality, subsampling=0, restart_marker_rows=1, **keywords)
        encoded = target.getvalue()
        frame, scan_data = _find_frame_and_scan_data(encoded)
        if not is_first:
            return _LAST_RESTART_BYTES + encoded[scan_data : -len(_END_BYTES)]
        headers = bytearray(encoded[:scan_data])
        struct.pack_into(">H", headers, frame + 3, self.height)  # after the length and the bits per sample
        return bytes(headers) + encoded[scan_data : -len(_END_BYTES)]


def _find_frame_and_scan_data(data: bytes) -> tuple[int, int]:
    """Return the offsets of the frame header's length and of the scan's entropy-coded data."""
    frame, at = 0, 2
    while True:
        marker, length = struct.unpack_from(">xBH", data, at)
        if marker == _BASELINE_FRAME:
            frame = at + 2
        at += 2 + length
        if marker == _SCAN:
            return frame, at
