"""JPEG (ITU-T T.81): read the container, write a file strip by strip.

`read_jpeg` walks the segments (annex B) without decoding a coefficient. It keeps tables, frame and scans for the
decoder, and of the application segments only JFIF and Adobe, which say how colours are stored. Thumbnails, EXIF, XMP,
comments and data after the end marker (MPO, motion photos) never reach a decoder. `JpegStream` writes a JPEG as its
rows arrive.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image as PilImage

from preprocessing.errors import UnreadableImageError
from preprocessing.formats.container import MAX_PARTS, Container
from preprocessing.formats.jpeg_metadata import JpegMetadata
from preprocessing.formats.jpeg_scans import FRAMES, SCAN, can_be_complete, trim_end
from preprocessing.image import Pixels

SIGNATURE = b"\xff\xd8\xff"
# Maximum number of scans in a JPEG; libjpeg's default script has 10. Each scan walks all coefficients again:
# 17 ms at 4096 x 4096 here, so 500 near-empty scans (115 kB) took 8.7 s. No limit of bytes or pixels stops that.
MAX_SCANS = 100
# Strips are a multiple of these rows: eight rows of 8 x 8 blocks. There are eight restart markers, so each strip begins
# with number 0.
STRIP_ROWS = 64
NO_END_NOTE = "The JPEG has no end marker: the file was cut or damaged there. All its pixels were found."

_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_CHANNELS = {"L": 1, "RGB": 3}

# Markers (table B.1).
_BASELINE_FRAME = 0xC0
_TABLES = {0xC4, 0xCC, 0xDB, 0xDC, 0xDD}
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # TEM, RSTn and SOI: no length follows
_END = 0xD9
_END_BYTES = b"\xff\xd9"
_LAST_RESTART_BYTES = b"\xff\xd7"
# A leading literal lets the search run at 2.8 GB/s here; with \xff+ for fill bytes it ran at 0.1 GB/s.
_MARKER = re.compile(rb"\xff([\x01-\xfe])")
_MARKER_AFTER_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither byte stuffing nor a restart marker

_JFIF, _ADOBE = b"JFIF\0", b"Adobe"

# Sum of the luminance table of annex K.1, which is quality 50.
_ANNEX_K_SUM = 3689


def read_jpeg(data: bytes) -> Container:
    """Return the facts in the headers of a JPEG.

    Raises UnreadableImageError when the size of the image is missing or invalid. Any other defect is returned in
    `Container.defect`, so that the caller can check the size first.
    """
    view = memoryview(data)
    required_chunks: list[bytes | memoryview] = [data[:2]]
    frame, defect, scans, ended = b"", "", 0, False
    metadata = JpegMetadata()
    end = 0
    for marker, body, segment, end in _segments(data, view):  # noqa: B007 - used after the loop
        if marker in FRAMES:
            if frame:
                defect = defect or "Invalid JPEG: it has a second frame header. Send the original file."
            frame = frame or bytes(body)
        metadata.take(marker, body, is_before_scan=not scans)
        scans += marker == SCAN
        ended = ended or marker == _END
        if _is_required(marker, body):
            required_chunks.append(segment)
    if ended:
        metadata.take_trailing(view[end:])
    width, height, components = _read_frame(frame, len(data))
    has_end = ended
    if not ended and end == len(data) and can_be_complete(required_chunks):
        required_chunks = [*required_chunks[:-1], trim_end(required_chunks[-1]), _END_BYTES]
        ended = True
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
        exif=metadata.exif,
        xmp=metadata.xmp,
        iptc=metadata.iptc(),
        texts=metadata.texts,
        icc_profile=metadata.icc_profile(),
        dpi=metadata.dpi,
        dropped=metadata.dropped(),
        has_end=has_end,
        notes=() if has_end else (NO_END_NOTE,),
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


def _segments(data: bytes, view: memoryview) -> Iterator[tuple[int, memoryview, memoryview, int]]:
    """Yield (marker, body, whole segment, offset of its end) of each segment.

    Stops at the end marker, at the first incomplete segment, and after MAX_PARTS segments.

    The segment of a scan reaches to the next marker, so it includes the entropy-coded data.
    """
    at = 2
    for _ in range(MAX_PARTS):
        found = _MARKER.search(data, at)
        if found is None:
            return
        marker, start, body_start = found[1][0], found.end() - 2, found.end() + 2
        if marker == _END:
            yield marker, view[0:0], view[start : found.end()], found.end()
            return
        if marker in _STANDALONE:
            at = found.end()
            continue
        at = found.end() + int.from_bytes(view[found.end() : body_start], "big")
        if at > len(data) or at < body_start:
            return
        body = view[body_start:at]
        if marker == SCAN:
            following = _MARKER_AFTER_SCAN.search(data, at)
            at = following.start() if following else len(data)
        yield marker, body, view[start:at], at


def _is_required(marker: int, body: memoryview) -> bool:
    if marker in FRAMES or marker in _TABLES or marker in (SCAN, _END):
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


class JpegStream:
    """A JPEG of known size (4:4:4, baseline), written as its rows arrive: `rows` once per band, then `finish`.

    Pillow encodes whole images only. But a scan may be cut at restart markers (section E.1.4): the data between two of
    them depends on nothing before. So each strip is encoded as a JPEG of its own, with a restart marker after every row
    of blocks, and the scans are joined under the headers of the first. The pixels are those of one call to Pillow; the
    file is a few bytes longer per row of blocks. A strip has all whole rows of a call that make a multiple of
    `STRIP_ROWS`: memory follows the call, not the image, and the bytes do not depend on the calls.
    """

    def __init__(
        self,
        width: int,
        height: int,
        mode: str,
        quality: int,
        icc_profile: bytes | None = None,
        dpi: tuple[float, float] | None = None,
        segments: bytes = b"",
    ) -> None:
        """`mode` is L or RGB. `segments` are written after JFIF: see `preprocessing.metadata.metadata`."""
        self._dpi, self._segments = dpi, segments
        self.width, self.height, self.mode, self.quality, self.icc_profile = width, height, mode, quality, icc_profile
        self._pending: Pixels = np.empty((0, width, _CHANNELS[mode]), np.uint8)  # rows that do not fill a strip yet
        self._rows_written = 0

    def rows(self, pixels: Pixels) -> bytes:
        """Return what the next rows, [h, width, channels] uint8, add to the file; empty while no strip is full."""
        if len(self._pending):
            missing = STRIP_ROWS - len(self._pending)
            self._pending, pixels = np.concatenate((self._pending, pixels[:missing])), pixels[missing:]
            if len(self._pending) < STRIP_ROWS:
                return b""
            parts = [self._encode_strip(self._pending)]
        else:
            parts = []
        whole = len(pixels) - len(pixels) % STRIP_ROWS
        if whole:
            parts.append(self._encode_strip(pixels[:whole]))
        self._pending = pixels[whole:].copy()  # the band itself is not kept
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
        keywords: dict[str, Any] = {}
        if is_first:
            keywords = {"icc_profile": self.icc_profile, "dpi": self._dpi, "extra": self._segments}
        keywords = {name: value for name, value in keywords.items() if value}
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
        if marker == SCAN:
            return frame, at
