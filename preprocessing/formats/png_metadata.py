"""PNG metadata: reads the ancillary chunks that say how the pixels are shown (W3C PNG, third edition, section 11.3).

Orientation (eXIf, XMP, "Raw profile type exif") and colours (cICP, iCCP, sRGB, gAMA, cHRM). A chunk with a wrong
checksum is ignored, as libpng does. Compressed text and profiles are inflated to a limit.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field

from preprocessing.formats.colour_chunks import CHUNK_BYTES
from preprocessing.formats.container import MAX_ICC_BYTES, MAX_XMP_BYTES
from preprocessing.formats.exif import sound_dpi
from preprocessing.metadata.iptc import read_iptc
from preprocessing.metadata.texts import Texts

METRES_PER_INCH = 0.0254
_MAX_KEYWORD_BYTES = 79
_XMP_KEYWORD = b"XML:com.adobe.xmp"
# ImageMagick's name for EXIF as text: a line with a name, a line with a length, then hexadecimal digits.
_RAW_EXIF_KEYWORD = b"Raw profile type exif"
_RAW_KEYWORD = b"Raw profile type "
_RAW_IPTC_KEYWORDS = (b"Raw profile type iptc", b"Raw profile type 8bim")
_RAW_PROFILE = re.compile(rb"\n[^\n]{0,79}\n[^\n]{0,79}\n([0-9A-Fa-f\s]*)")


@dataclass(eq=False)
class PngMetadata:
    """What the ancillary chunks of one PNG say; call `take` with each chunk in order."""

    exif: bytes = b""
    is_exif_before_pixels: bool = True
    """Whether `exif` is from an eXIf chunk before the first IDAT: browsers read no other."""
    xmp: bytes = b""
    icc_profile: bytes | None = None
    colour_chunks: dict[bytes, bytes] = field(default_factory=dict)
    """Type and body of the chunks of `CHUNK_BYTES` before the first IDAT."""
    dpi: tuple[float, float] | None = None
    texts: Texts = field(default_factory=Texts)
    """Text chunks that hold something else than XMP and a raw profile."""
    iptc: bytes = b""
    dropped: set[str] = field(default_factory=set)
    """What no result has, in words."""
    frames: int = 1
    transparent: bytes = b""
    """The body of tRNS of an image without a palette."""
    _raw_exif: bytes | None = field(default=None, repr=False)
    _has_exif: bool = False
    _has_xmp: bool = False

    def take(self, kind: bytes, body: memoryview, chunk: memoryview, *, is_before_pixels: bool) -> None:
        """Read a chunk if it is the first sound one of its kind; any other is ignored."""
        if kind == b"acTL" and len(body) == 8:
            self.frames = max(1, struct.unpack(">I", body[:4])[0])
        elif kind == b"tRNS":
            self.transparent = bytes(body[:6])
        elif kind == b"iCCP" and self.icc_profile is None:
            self.icc_profile = _inflate_profile(bytes(body)) if _is_sound(chunk) else b""
        elif kind == b"eXIf" and not self._has_exif and _is_sound(chunk):
            self._has_exif = True
            self.exif = bytes(body)
            self.is_exif_before_pixels = is_before_pixels and not self.exif.startswith(b"Exif")
        elif kind == b"pHYs" and len(body) == 9 and self.dpi is None and _is_sound(chunk):
            x, y, unit = struct.unpack(">IIB", body)
            self.dpi = sound_dpi(x * METRES_PER_INCH, y * METRES_PER_INCH) if unit == 1 else None
            if unit == 0 and x != y:
                self.dropped.add("the shape of the pixels")
        elif kind == b"caBX":
            self.dropped.add("the C2PA manifest")
        elif kind in CHUNK_BYTES and kind not in self.colour_chunks:
            if len(body) == CHUNK_BYTES[kind] and is_before_pixels and _is_sound(chunk):
                self.colour_chunks[kind] = bytes(body)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            self._take_text(kind, body, chunk)

    def finish(self) -> None:
        """Use the raw profile where the image has no eXIf; call it after the last chunk."""
        if not self._has_exif and self._raw_exif is not None:
            self.exif, self.is_exif_before_pixels = self._raw_exif, False

    def _take_text(self, kind: bytes, body: memoryview, chunk: memoryview) -> None:
        keyword, _, _ = bytes(body[: _MAX_KEYWORD_BYTES + 1]).partition(b"\0")
        if keyword == _XMP_KEYWORD:
            if not self._has_xmp and _is_sound(chunk):
                self._has_xmp, self.xmp = True, _read_text(kind, body[len(keyword) + 1 :]) or b""
        elif keyword == _RAW_EXIF_KEYWORD and self._raw_exif is None and _is_sound(chunk):
            self._raw_exif = _parse_raw_profile(_read_text(kind, body[len(keyword) + 1 :]))
        elif keyword in _RAW_IPTC_KEYWORDS and not self.iptc and _is_sound(chunk):
            self.iptc = read_iptc(_parse_raw_profile(_read_text(kind, body[len(keyword) + 1 :])))
        elif keyword.startswith(_RAW_KEYWORD):
            self.dropped.add("a raw profile")
        elif self.texts.bytes_left and _is_sound(chunk):
            text = _read_text(kind, body[len(keyword) + 1 :], self.texts.bytes_left)
            self.texts.take(keyword.decode("latin-1"), text, "utf-8" if kind == b"iTXt" else "latin-1")
        else:
            self.texts.take("", None)


def _is_sound(chunk: memoryview) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _read_text(kind: bytes, body: memoryview, max_bytes: int = MAX_XMP_BYTES) -> bytes | None:
    """Return the text of tEXt, zTXt or iTXt, given what follows the keyword; None if it is damaged or too long."""
    is_compressed = kind == b"zTXt"
    start = 1 if is_compressed else 0  # the compression method
    if kind == b"iTXt":
        is_compressed = bytes(body[:1]) == b"\1"
        # Two flags, then a language and a translated keyword, which end with a null byte each.
        places = [at for at, byte in enumerate(body[2 : 2 + 4 * _MAX_KEYWORD_BYTES], 2) if byte == 0]
        if len(places) < 2:
            return None
        start = places[1] + 1
    text = _inflate(body[start:], max_bytes) if is_compressed else bytes(body[start : start + max_bytes + 1])
    is_readable = len(text) <= max_bytes and (text or not is_compressed)
    return text if is_readable else None


def _parse_raw_profile(text: bytes | None) -> bytes:
    found = _RAW_PROFILE.match(text or b"")
    digits = b"".join(found[1].split()) if found else b""
    return bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii"))


def _inflate_profile(body: bytes) -> bytes:
    """Return the profile of an iCCP chunk, cut after MAX_ICC_BYTES + 1 bytes however large it would inflate."""
    _, _, packed = body.partition(b"\0")
    return _inflate(packed[1:], MAX_ICC_BYTES)


def _inflate(packed: bytes | memoryview, limit: int) -> bytes:
    """Return what a zlib stream holds, cut after `limit` + 1 bytes; nothing when it is corrupt."""
    try:
        return zlib.decompressobj().decompress(packed, limit + 1)
    except zlib.error:
        return b""
