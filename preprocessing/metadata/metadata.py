"""Metadata that a result holds, and how PNG, JPEG and WebP store it.

A further format needs one more function here: from `Metadata` to what its encoder takes. An encoder of Pillow with the
keywords `exif` and `xmp` takes `pillow_keywords`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

from preprocessing.metadata.exif_rewrite import resolution_exif, rewrite_exif
from preprocessing.metadata.iptc import PHOTOSHOP, write_iptc
from preprocessing.metadata.texts import COMMENT, Text
from preprocessing.metadata.xmp import Origin, make_xmp, rewrite_xmp


@dataclass(frozen=True)
class Metadata:
    """Metadata of an image. `rewrite` makes it that of a result; only then may it be written."""

    exif: bytes = field(default=b"", repr=False)
    """A TIFF block (EXIF 2.32)."""
    xmp: bytes = field(default=b"", repr=False)
    """A packet in UTF-8 (ISO 16684-1)."""
    iptc: bytes = field(default=b"", repr=False)
    """Datasets of IPTC-IIM."""
    texts: tuple[Text, ...] = ()
    ai_source_type: str = ""
    """IPTC's term if the upload says that a trained model made it; kept in the result even without other metadata."""

    def rewrite(self, width: int, height: int, dpi: tuple[float, float] | None, origin: Origin | None) -> Metadata:
        """Return the metadata of a result of this size, with its origin. Parts that cannot be kept are empty."""
        if origin is not None and self.ai_source_type:
            origin = replace(origin, source_type=self.ai_source_type)
        properties = origin.properties() if origin else {}
        xmp = rewrite_xmp(self.xmp, width, height, properties)[0] if self.xmp else b""
        return replace(
            self,
            exif=rewrite_exif(self.exif, width, height, dpi) if self.exif else b"",
            xmp=xmp or make_xmp(properties),
        )


def metadata_chunks(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Return type and body of the chunks of a PNG (W3C PNG sections 11.3.3 and 11.3.4).

    PNG does not define IPTC. ImageMagick and ExifTool store it as a text of hexadecimal digits, and read it there.
    """
    chunks = [(b"eXIf", metadata.exif)] if metadata.exif else []
    if metadata.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    if metadata.iptc:
        block = write_iptc(metadata.iptc)
        digits = block.hex()
        lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
        chunks.append((b"tEXt", b"Raw profile type iptc\0" + f"\niptc\n{len(block):8}\n{lines}\n".encode()))
    for keyword, text in metadata.texts:
        try:
            chunks.append((b"tEXt", keyword.encode("latin-1") + b"\0" + text.encode("latin-1")))
        except UnicodeEncodeError:
            chunks.append((b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()))
    return chunks


def jpeg_segments(metadata: Metadata) -> bytes:
    """Return the segments of a JPEG that follow JFIF: EXIF, XMP, IPTC and comments."""
    comments = [text if keyword == COMMENT else f"{keyword}: {text}" for keyword, text in metadata.texts]
    segments = [
        (0xE1, b"Exif\0\0" + metadata.exif if metadata.exif else b""),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + metadata.xmp if metadata.xmp else b""),
        (0xED, PHOTOSHOP + write_iptc(metadata.iptc) if metadata.iptc else b""),
        *((0xFE, comment.encode()) for comment in comments),
    ]
    return b"".join(struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body for marker, body in segments if body)


def pillow_keywords(metadata: Metadata, dpi: tuple[float, float] | None) -> dict[str, bytes]:
    """Return the keywords of Pillow's encoders of WebP and AVIF. Without EXIF, a block is made for the resolution."""
    exif = metadata.exif or (resolution_exif(dpi) if dpi else b"")
    return {name: block for name, block in (("exif", exif), ("xmp", metadata.xmp)) if block}
