"""JPEG metadata: what the application segments and comments of one file hold (ITU-T T.81 annex B, and what others add).

EXIF, XMP, IPTC, comments, profile and resolution are collected; of the rest only the kind is noted, because no result
has it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from preprocessing.formats.container import MAX_ICC_BYTES, MAX_XMP_BYTES
from preprocessing.formats.exif import sound_dpi
from preprocessing.metadata.iptc import PHOTOSHOP, read_iptc
from preprocessing.metadata.texts import COMMENT, Texts

_EXIF, _XMP = b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0"
_ICC, _JFIF, _ADOBE = b"ICC_PROFILE\0", b"JFIF\0", b"Adobe"
# What no result has, by marker and first bytes.
_DROPPED = (
    (0xE0, b"JFXX\0", "a thumbnail"),
    (0xE1, b"http://ns.adobe.com/xmp/extension/\0", "the extension of XMP"),
    (0xE2, b"MPF\0", "further images"),
    (0xE2, b"urn:iso:std:iso:ts:21496:-1\0", "the HDR gain map"),
    (0xEB, b"JP", "the C2PA manifest"),
)
_APPLICATION = range(0xE0, 0xF0)
# Segments of unknown kinds that are smaller are not mentioned: encoders leave their settings there.
_MIN_UNKNOWN_BYTES = 256
# Bytes of Photoshop's resources that are searched for IPTC.
_MAX_PHOTOSHOP_BYTES = 1_048_576
# Bytes after the end of an image that are not mentioned: padding.
_MIN_TRAILING_BYTES = 64


@dataclass(eq=False)
class JpegMetadata:
    """What the segments of one JPEG hold apart from pixels; call `take` with each segment in order."""

    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    texts: Texts = field(default_factory=Texts)
    _photoshop: bytes = b""
    _icc_parts: dict[int, bytes] = field(default_factory=dict)
    _dropped: set[str] = field(default_factory=set)

    def take(self, marker: int, body: memoryview, *, is_before_scan: bool) -> None:
        """Read a segment if it holds metadata. Viewers read none of EXIF and XMP after the first scan."""
        start = bytes(body[:40])
        if marker == 0xE0 and start.startswith(_JFIF):
            self._take_jfif(start)
        elif marker == 0xE1 and start.startswith(_EXIF):
            # Padding of any value follows "Exif" and 0; the first segment may be empty.
            self.exif = self.exif or bytes(body[len(_EXIF) + 1 :] if is_before_scan else b"")
        elif marker == 0xE1 and start.startswith(_XMP):
            self.xmp = self.xmp or bytes(body[len(_XMP) :][:MAX_XMP_BYTES] if is_before_scan else b"")
        elif marker == 0xE2 and start.startswith(_ICC) and len(body) > 14:
            self._icc_parts.setdefault(body[12], bytes(body[14:]))
        elif marker == 0xED and start.startswith(PHOTOSHOP):
            if len(self._photoshop) < _MAX_PHOTOSHOP_BYTES:
                self._photoshop += bytes(body[len(PHOTOSHOP) :])
        elif marker == 0xFE and start:
            self.texts.take(COMMENT, bytes(body))
        elif name := next((name for of, key, name in _DROPPED if of == marker and start.startswith(key)), ""):
            self._dropped.add(name)
        elif marker in _APPLICATION and not start.startswith(_ADOBE) and len(body) >= _MIN_UNKNOWN_BYTES:
            self._dropped.add("data of the camera or program")

    def take_trailing(self, rest: memoryview) -> None:
        """Note data after the end marker, such as the video of a motion photo or a second image."""
        if len(rest) >= _MIN_TRAILING_BYTES and any(rest[:_MIN_TRAILING_BYTES]):
            self._dropped.add("data after the end of the image")

    def iptc(self) -> bytes:
        """Return the datasets of IPTC; empty without any."""
        return read_iptc(self._photoshop)

    def icc_profile(self) -> bytes | None:
        """Return the numbered parts of the profile joined (ICC.1:2022 annex B.4), at most MAX_ICC_BYTES + 1 bytes."""
        if not self._icc_parts:
            return None
        return b"".join(self._icc_parts[number] for number in sorted(self._icc_parts))[: MAX_ICC_BYTES + 1]

    def dropped(self) -> tuple[str, ...]:
        """Return what no result has, in words. Adobe's and Google's gain maps are announced in XMP."""
        found = set(self._dropped)
        if b"hdrgm:" in self.xmp:
            found.add("the HDR gain map")
        if found & {"the HDR gain map", "further images"}:
            found.discard("data after the end of the image")  # the same data
        if self._photoshop and not self.iptc():
            found.add("data of Photoshop")
        return tuple(sorted(found))

    def _take_jfif(self, start: bytes) -> None:
        if len(start) < 12 or self.dpi is not None:
            return
        unit, x, y = struct.unpack_from(">BHH", start, 7)
        if per_inch := {1: 1.0, 2: 2.54}.get(unit):
            self.dpi = sound_dpi(per_inch * x, per_inch * y)
        elif x != y and x and y:
            self._dropped.add("the shape of the pixels")
