"""Thousands of damaged uploads of every kind: each ends as an ImageError or as an image of the announced size.

Half of the damage is re-sealed (PNG checksums, RIFF lengths), so that it reaches the decoders behind our own checks.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from preprocessing.codec import UploadLimits, decode, probe
from preprocessing.errors import ImageError
from tests import builders

LIMITS = UploadLimits(max_bytes=1_000_000, max_pixels=100_000, max_side=5_000)
ROUNDS = 180
PHOTO, GREY, ALPHA = builders.draw_photo(11, 13), builders.draw_grey(11, 13), builders.draw_alpha(11, 13)
EXIF = builders.exif_with_orientation(6, gps=True)

SEEDS: dict[str, bytes] = {
    "png-rgb": builders.encode_png(PHOTO, icc_profile=builders.icc_profile(), exif=EXIF),
    "png-rgba": builders.encode_png(np.dstack((PHOTO, ALPHA))),
    "png-grey-alpha": builders.encode_png(np.dstack((GREY, ALPHA))),
    "png-one-bit": builders.one_bit_png(GREY > 99),
    "png-grey16": builders.grey16_png(GREY.astype(np.uint16) * np.uint16(250)),
    "png-palette": builders.palette_png_with_transparency(PHOTO),
    "png-key": builders.png_with_transparent_colour(PHOTO, (1, 2, 3)),
    "png-text": builders.insert_png_chunk(builders.encode_png(GREY), b"zTXt", b"a\0\0" + zlib.compress(bytes(999))),
    "apng": builders.animated_png([PHOTO, ~PHOTO]),
    "jpeg": builders.encode_jpeg(PHOTO, exif=b"Exif\0\0" + EXIF, icc_profile=builders.icc_profile()),
    "jpeg-grey": builders.encode_jpeg(GREY),
    "jpeg-progressive": builders.encode_jpeg(PHOTO, progressive=True, subsampling=2),
    "jpeg-cmyk": builders.cmyk_jpeg(PHOTO),
    "jpeg-ycck": builders.ycck_jpeg(PHOTO),
    "webp": builders.encode_webp(PHOTO, icc_profile=builders.icc_profile(), exif=EXIF),
    "webp-alpha": builders.encode_webp(np.dstack((PHOTO, ALPHA)), lossless=False),
    "webp-lossy": builders.encode_webp(PHOTO, lossless=False),
    "webp-animated": builders.animated_webp([PHOTO, ~PHOTO]),
}


def flip(data: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8))):
        damaged[dice.randrange(4, len(damaged))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
    return bytes(damaged)


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def drop(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + data[at + dice.randrange(1, 40) :]


def repeat(data: bytes, dice: random.Random) -> bytes:
    start, at = dice.randrange(len(data)), dice.randrange(4, len(data))
    return data[:at] + data[start : start + dice.randrange(1, 400)] + data[at:]


def splice(data: bytes, dice: random.Random) -> bytes:
    other = dice.choice(list(SEEDS.values()))
    return data[: dice.randrange(4, len(data))] + other[dice.randrange(len(other)) :]


def enlarge_number(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(4, len(data) - 4)
    return data[:at] + struct.pack(dice.choice("<>") + "I", dice.choice((0, 2**31, 2**32 - 1, 65_536))) + data[at + 4 :]


def seal(data: bytes) -> bytes:
    """Repair the checksums of a PNG's chunks or the length of a RIFF, as an attacker would."""
    if data.startswith(b"RIFF"):
        return data[:4] + struct.pack("<I", max(0, len(data) - 8)) + data[8:]
    if not data.startswith(builders.PNG_SIGNATURE):
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


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_uploads_are_refused_by_name_or_decoded_whole(name: str) -> None:
    dice = random.Random(name)
    outcomes: Counter[str] = Counter()
    sentences: list[str] = []
    for _ in range(ROUNDS):
        damaged = dice.choice(DAMAGES)(SEEDS[name], dice)
        data = seal(damaged) if dice.random() < 0.5 else damaged
        try:
            upload = probe(data, LIMITS)
            image = decode(upload)
        except ImageError as error:
            outcomes[error.kind] += 1
            sentences.append(str(error))
        else:
            assert (image.height, image.width) == (upload.height, upload.width)
            outcomes["decoded"] += 1
    assert outcomes["unreadable-image"] > 0  # the damage does reach the readers
    assert outcomes.total() == ROUNDS
    assert [words for words in sentences if not words.endswith(".")] == []


@pytest.mark.parametrize("name", SEEDS)
def test_every_undamaged_seed_decodes(name: str) -> None:
    assert decode(probe(SEEDS[name], LIMITS)).pixels.size > 0
