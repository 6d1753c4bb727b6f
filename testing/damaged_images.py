"""Valid uploads of every kind, and functions that damage them."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image as PilImage

from testing import images
from testing.data import ROOT
from testing.deep_images import png16, tiff16

PHOTO, GREY, ALPHA = images.draw_photo(11, 13), images.draw_grey(11, 13), images.draw_alpha(11, 13)


EXIF = images.exif_with_orientation(6, gps=True)


SEEDS: dict[str, bytes] = {
    "png-rgb": images.encode_png(PHOTO, icc_profile=images.icc_profile(), exif=EXIF),
    "png-rgba": images.encode_png(np.dstack((PHOTO, ALPHA))),
    "png-grey-alpha": images.encode_png(np.dstack((GREY, ALPHA))),
    "png-one-bit": images.one_bit_png(GREY > 99),
    "png-grey16": images.grey16_png(GREY.astype(np.uint16) * np.uint16(250)),
    "png-grey-alpha16": png16(np.dstack((GREY, ALPHA)).astype(np.uint16) * np.uint16(250)),
    "png-rgb16": png16(PHOTO.astype(np.uint16) * np.uint16(250)),
    "png-palette": images.palette_png_with_transparency(PHOTO),
    "png-key": images.png_with_transparent_colour(PHOTO, (1, 2, 3)),
    "png-text": images.insert_png_chunk(images.encode_png(GREY), b"zTXt", b"a\0\0" + zlib.compress(bytes(999))),
    "png-xmp": images.png_with_xmp(PHOTO, images.xmp_with_orientation(6), is_compressed=True),
    "png-raw-profile": images.insert_png_chunk(
        images.encode_png(PHOTO), b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(images.raw_profile(EXIF))
    ),
    "png-colours": images.insert_png_chunk(
        images.insert_png_chunk(images.encode_png(PHOTO), b"gAMA", struct.pack(">I", 55_100)),
        b"cHRM",
        struct.pack(">8I", 31_270, 32_900, 70_800, 29_200, 17_000, 79_700, 13_100, 4_600),
    ),
    "png-cicp": images.insert_png_chunk(images.encode_png(GREY), b"cICP", b"\x0c\x0d\0\1"),
    "apng": images.animated_png([PHOTO, ~PHOTO]),
    "jpeg": images.encode_jpeg(PHOTO, exif=b"Exif\0\0" + EXIF, icc_profile=images.icc_profile()),
    "jpeg-xmp": images.encode_jpeg(PHOTO, xmp=images.xmp_with_orientation(6, as_element=True)),
    "jpeg-grey": images.encode_jpeg(GREY),
    "jpeg-progressive": images.encode_jpeg(PHOTO, progressive=True, subsampling=2),
    "jpeg-cmyk": images.cmyk_jpeg(PHOTO),
    "jpeg-ycck": images.ycck_jpeg(PHOTO),
    "webp": images.encode_webp(PHOTO, icc_profile=images.icc_profile(), exif=EXIF),
    "webp-xmp": images.encode_webp(PHOTO, xmp=images.xmp_with_orientation(6)),
    "webp-alpha": images.encode_webp(np.dstack((PHOTO, ALPHA)), lossless=False),
    "webp-lossy": images.encode_webp(PHOTO, lossless=False),
    "webp-animated": images.animated_webp([PHOTO, ~PHOTO]),
    "avif": images.save(PilImage.fromarray(PHOTO), "AVIF", icc_profile=images.icc_profile(), exif=EXIF),
    "avif-alpha": images.save(PilImage.fromarray(np.dstack((PHOTO, ALPHA))), "AVIF"),
    "bmp": images.save(PilImage.fromarray(PHOTO), "BMP"),
    "bmp-grey": images.save(PilImage.fromarray(GREY), "BMP"),
    "gif": images.save(PilImage.fromarray(PHOTO), "GIF", save_all=True, append_images=[PilImage.fromarray(~PHOTO)]),
    "gif-alpha": images.save(PilImage.fromarray(np.dstack((PHOTO, ALPHA))), "GIF"),
    "heic": (ROOT / "tests/data/heic/alpha.heic").read_bytes(),
    "heic-turned": (ROOT / "tests/data/heic/exif6.heic").read_bytes(),
    "tiff": images.save(PilImage.fromarray(PHOTO), "TIFF", compression="tiff_lzw", icc_profile=images.icc_profile()),
    "tiff-cmyk": images.save(PilImage.fromarray(PHOTO).convert("CMYK"), "TIFF"),
    "tiff-grey16": images.save(PilImage.fromarray(GREY.astype(np.uint16) * np.uint16(250)), "TIFF"),
    "tiff-rgb16": tiff16(PHOTO.astype(np.uint16) * np.uint16(250), deflates=True),
}


def flip(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        damaged[rng.randrange(4, len(damaged))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(damaged)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def drop(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randrange(1, 40) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start, at = rng.randrange(len(data)), rng.randrange(4, len(data))
    return data[:at] + data[start : start + rng.randrange(1, 400)] + data[at:]


def splice(data: bytes, rng: random.Random) -> bytes:
    other = rng.choice(list(SEEDS.values()))
    return data[: rng.randrange(4, len(data))] + other[rng.randrange(len(other)) :]


def enlarge_number(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(4, len(data) - 4)
    return data[:at] + struct.pack(rng.choice("<>") + "I", rng.choice((0, 2**31, 2**32 - 1, 65_536))) + data[at + 4 :]


def seal(data: bytes) -> bytes:
    """Recompute the checksums of a PNG's chunks or the length of a RIFF, as an attacker would."""
    if data.startswith(b"RIFF"):
        return data[:4] + struct.pack("<I", max(0, len(data) - 8)) + data[8:]
    if not data.startswith(images.PNG_SIGNATURE):
        return data
    sealed, at = bytearray(data), 8
    while at + 12 <= len(sealed):
        end = at + 12 + int.from_bytes(sealed[at : at + 4], "big")
        if end > len(sealed):
            break
        sealed[end - 4 : end] = struct.pack(">I", zlib.crc32(sealed[at + 4 : end - 4]))
        at = end
    return bytes(sealed)


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip,
    flip,
    flip,
    cut,
    drop,
    repeat,
    splice,
    enlarge_number,
)
