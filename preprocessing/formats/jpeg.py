"""Walks the segments of a JPEG (ITU-T T.81 annex B) without decoding a coefficient.

The essence keeps tables, frame, scans, and of the application segments JFIF and Adobe alone, which say how colours are
stored. Thumbnails, EXIF, XMP, comments and whatever follows the end marker (MPO, motion photos) never reach a decoder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from preprocessing.errors import UnreadableImageError
from preprocessing.formats.container import MAX_ICC_BYTES, MAX_PARTS, Container

SIGNATURE = b"\xff\xd8\xff"

MAX_SCANS = 100
"""Scans of one JPEG; libjpeg's own progressive script has 10. Each walks every coefficient again: 17 ms at 4096 x 4096
here, so 500 near-empty ones (115 kB) took 8.7 s. No limit of bytes or pixels sees that bomb."""

_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES = {0xC4, 0xCC, 0xDB, 0xDC, 0xDD}
_BARE = {0x01, *range(0xD0, 0xD9)}  # TEM, RSTn and SOI stand alone: no length follows
_SCAN, _END = 0xDA, 0xD9
# A leading literal lets the search run at 2.8 GB/s here; with \xff+ for fill bytes it ran at 0.1.
_MARKER = re.compile(rb"\xff([\x01-\xfe])")
_MARKER_AFTER_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not stuffing, not a restart

_EXIF, _ICC, _JFIF, _ADOBE = b"Exif\0\0", b"ICC_PROFILE\0", b"JFIF\0", b"Adobe"


def read_jpeg(data: bytes) -> Container:
    """Return the facts of a JPEG; raises UnreadableImage when even its size cannot be known."""
    view = memoryview(data)
    essence: list[bytes | memoryview] = [data[:2]]
    frame, exif, flaw, scans, ended = b"", b"", "", 0, False
    icc_parts: dict[int, bytes] = {}
    for marker, body, segment in _segments(data, view):
        if marker in _FRAMES:
            if frame:
                flaw = flaw or "The JPEG has a second frame header: it is corrupt."
            frame = frame or bytes(body)
        elif marker == 0xE1 and body[:6] == _EXIF and not exif:
            exif = bytes(body)
        elif marker == 0xE2 and body[:12] == _ICC and len(body) > 14:
            icc_parts.setdefault(body[12], bytes(body[14:]))
        scans += marker == _SCAN
        ended = ended or marker == _END
        if _is_essential(marker, body):
            essence.append(segment)
    if len(frame) < 6:
        raise UnreadableImageError(
            f"The JPEG ends or goes astray before its size: {len(data):,} bytes. Send the whole file."
        )
    height, width, components = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big"), frame[5]
    if not (width and height):
        raise UnreadableImageError(f"The JPEG announces {width} x {height} pixels, which is no image.")
    if components not in _MODES:
        raise UnreadableImageError(f"The JPEG has {components} colour components; 1, 3 or 4 are read.")
    if frame[0] != 8:
        flaw = flaw or f"The JPEG has {frame[0]} bits a sample; 8 are read. Save it again as an ordinary JPEG."
    return Container(
        format="JPEG",
        width=width,
        height=height,
        mode=_MODES[components],
        essence=essence,
        exif=exif,
        icc_profile=_join_profile(icc_parts),
        flaw=flaw or _find_gap(len(data), scans, ended=ended),
    )


def _segments(data: bytes, view: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield (marker, body, whole segment) up to the end marker, the first incomplete segment, or the limit of parts.

    A scan's segment reaches to the next marker, so it carries its entropy-coded data.
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
        if marker in _BARE:
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


def _is_essential(marker: int, body: memoryview) -> bool:
    if marker in _FRAMES or marker in _TABLES or marker in (_SCAN, _END):
        return True
    return (marker == 0xE0 and body[:5] == _JFIF) or (marker == 0xEE and body[:5] == _ADOBE)


def _find_gap(n_bytes: int, scans: int, *, ended: bool) -> str:
    if scans > MAX_SCANS:
        return f"The JPEG has {scans:,} scans; {MAX_SCANS} is the limit. Save it again as a baseline JPEG."
    if not ended:
        return f"The JPEG has no end marker within its {n_bytes:,} bytes: it is truncated, send the whole file."
    if not scans:
        return "The JPEG holds no pixels (no scan)."
    return ""


def _join_profile(parts: dict[int, bytes]) -> bytes | None:
    """Join the numbered parts of a profile (ICC.1:2022 annex B.4), at most one byte more than is kept."""
    if not parts:
        return None
    return b"".join(parts[number] for number in sorted(parts))[: MAX_ICC_BYTES + 1]
