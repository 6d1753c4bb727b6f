"""Uploads whose orientation stands wherever a phone, Finder, ImageMagick or an attacker puts it.

The pixels are stored for orientation 6, so that an upload that is turned is upright.
"""

from __future__ import annotations

import zlib

from testing import images

PHOTO = images.draw_photo(16, 24)
EXIF, XMP = images.exif_with_orientation, images.xmp_with_orientation
NO_TAG = EXIF(6).replace(b"\x12\x01", b"\x13\x01")
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"


def stored(orientation: int) -> images.Pixels:
    return images.store_for_orientation(PHOTO, orientation)


def png(*chunks: tuple[bytes, bytes], late: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    data = images.encode_png(stored(6))
    for kind, body in chunks:
        data = images.insert_png_chunk(data, kind, body)
    return data[:-12] + b"".join(images.png_chunk(kind, body) for kind, body in late) + data[-12:]


def jpeg(*segments: bytes) -> bytes:
    data = images.encode_jpeg(stored(6))
    for body in reversed(segments):
        data = images.insert_jpeg_segment(data, 0xE1, body)
    return data


def itxt(xmp: bytes, flags: bytes = b"\0\0") -> tuple[bytes, bytes]:
    return b"iTXt", b"XML:com.adobe.xmp\0" + flags + b"en\0XMP\0" + xmp


def raw_profile(kind: bytes, exif: bytes) -> tuple[bytes, bytes]:
    keyword, text = b"Raw profile type exif\0", images.raw_profile(exif)
    tails = {b"tEXt": text, b"zTXt": b"\0" + zlib.compress(text), b"iTXt": b"\0\0\0\0" + text}
    return kind, keyword + tails[kind]


# By name; Pillow's `exif_transpose` is right in all of them.
AS_PILLOW = {
    "eXIf": png((b"eXIf", EXIF(6))),
    "eXIf behind the pixels": png(late=((b"eXIf", EXIF(6)),)),
    "eXIf with a JPEG's header": png((b"eXIf", b"Exif\0\0" + EXIF(6))),
    "PNG XMP attribute": png(itxt(XMP(6))),
    "PNG XMP element": png(itxt(XMP(6, as_element=True))),
    "PNG XMP compressed": png(itxt(zlib.compress(XMP(6)), b"\1\0")),
    "PNG XMP behind the pixels": png(late=(itxt(XMP(6)),)),
    "PNG XMP, EXIF without a tag": png((b"eXIf", NO_TAG), itxt(XMP(6))),
    "raw profile tEXt": png(raw_profile(b"tEXt", EXIF(6))),
    "raw profile zTXt": png(raw_profile(b"zTXt", EXIF(6))),
    "raw profile iTXt": png(raw_profile(b"iTXt", EXIF(6))),
    "JPEG EXIF": jpeg(b"Exif\0\0" + EXIF(6)),
    "JPEG empty EXIF first": jpeg(b"Exif\0\0", b"Exif\0\0" + EXIF(6)),
    "JPEG XMP": jpeg(XMP_SEGMENT + XMP(6)),
    "JPEG XMP, EXIF without a tag": jpeg(b"Exif\0\0" + NO_TAG, XMP_SEGMENT + XMP(6)),
    "WebP EXIF": images.encode_webp(stored(6), exif=EXIF(6)),
    "WebP XMP": images.encode_webp(stored(6), xmp=XMP(6)),
    # Not turned:
    "eXIf 1 wins over XMP": png((b"eXIf", EXIF(1)), itxt(XMP(6))),
    "eXIf 1 wins over a raw profile": png((b"eXIf", EXIF(1)), raw_profile(b"zTXt", EXIF(6))),
    "eXIf without a tag wins over a raw profile": png((b"eXIf", NO_TAG), raw_profile(b"zTXt", EXIF(6))),
    "raw profile of another kind": png((b"tEXt", b"Raw profile type iptc\0" + images.raw_profile(EXIF(6)))),
    "JPEG EXIF 1 wins over XMP": jpeg(b"Exif\0\0" + EXIF(1), XMP_SEGMENT + XMP(6)),
    "JPEG EXIF 1 wins over a second": jpeg(b"Exif\0\0" + EXIF(1), b"Exif\0\0" + EXIF(6)),
    "JPEG EXIF 0 wins over XMP": jpeg(b"Exif\0\0" + EXIF(0), XMP_SEGMENT + XMP(6)),
    "WebP EXIF 1 wins over XMP": images.encode_webp(stored(6), exif=EXIF(1), xmp=XMP(6)),
    "WebP chunk that no flag announces": images.add_webp_chunk(images.encode_webp(stored(6)), b"EXIF", EXIF(6)),
}
