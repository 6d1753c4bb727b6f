"""Uploads of AVIF, HEIC, TIFF, BMP and GIF that lie about their size, or explode when they are decoded."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image as PilImage

from testing import images
from testing.data import ROOT

Dice = random.Random

# Sides that headers declare: small, near the limits, and beyond all of them.
_SIDES = (0, 1, 40, 700, 3_500, 8_192, 8_193, 65_535, 2**31 - 1, 2**32 - 1)
_HEIC = (ROOT / "tests/data/heic/plain.heic").read_bytes()


@cache
def _flat(format_: str, side: int = 64) -> bytes:
    """Return a flat image, which has few bytes however large it is."""
    return images.save(PilImage.fromarray(np.full((side, side, 3), 90, np.uint8)), format_)


@cache
def _zeros(n_bytes: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1_000_000)
    return b"".join(packer.compress(block) for _ in range(n_bytes // len(block))) + packer.flush()


def lying_isobmff(rng: Dice) -> bytes:
    """Return an AVIF or HEIC whose properties declare other sizes than its pixels have."""
    data = rng.choice((_flat("AVIF"), _HEIC))
    for kind in (b"ispe", b"clap"):
        at = data.find(kind)
        if at > 0 and (kind == b"ispe" or rng.random() < 0.5):
            skip = 8 if kind == b"ispe" else 4
            values = struct.pack(">II", rng.choice(_SIDES), rng.choice(_SIDES))
            data = data[: at + skip] + values + data[at + skip + 8 :]
    return data


def nested_boxes(rng: Dice) -> bytes:
    """Return an AVIF whose boxes overlap, nest or are very many."""
    data = _flat("AVIF")
    kind = rng.choice((b"ipco", b"iloc", b"ipma", b"iinf", b"meta"))
    at = data.index(kind)
    if rng.random() < 0.5:
        size = struct.pack(">I", rng.choice((0, 1, 7, 8, 2**31, 2**32 - 1)))
        return data[: at - 4] + size + data[at:]
    return data[:at] + kind + struct.pack(">I4s", 8, b"free") * rng.choice((10, 100_000)) + data[at + 4 :]


def lying_tiff(rng: Dice) -> bytes:
    """Return a TIFF with other sizes, strips, samples or compression than its pixels have."""
    data = bytearray(_flat("TIFF"))
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    for place in rng.sample(range(at + 2, at + 2 + 12 * count, 12), 2):
        struct.pack_into("<I", data, place + rng.choice((4, 8)), rng.choice((*_SIDES, 5, 7, 32_773, 50_000)))
    return bytes(data)


def tiff_bomb(rng: Dice) -> bytes:
    """Return a TIFF whose only strip inflates to up to 64 MB, of which the image needs a part or more than there is."""
    side, n_bytes = rng.choice((64, 700, 3_500)), rng.choice((1_000_000, 64_000_000))
    strip = _zeros(n_bytes)
    samples = rng.choice((1, 3))
    entries = (
        (256, 4, side),
        (257, 4, side),
        (258, 3, 8),
        (259, 3, 8),
        (262, 3, 2 if samples == 3 else 1),
        (273, 4, 8),
        (277, 3, samples),
        (278, 4, side),
        (279, 4, len(strip)),
    )
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, v) for tag, kind, v in entries
    )
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory + rng.choice((bytes(4), b"\x08\0\0\0", b""))


def lying_bmp(rng: Dice) -> bytes:
    """Return a BMP with another size, depth or run-length encoding than its pixels have."""
    data = bytearray(_flat("BMP"))
    struct.pack_into("<ii", data, 18, rng.choice((64, 700, 70_000, -5)), rng.choice((64, -64, 700, 2**31 - 1)))
    struct.pack_into("<HI", data, 28, rng.choice((1, 4, 8, 24, 32, 77)), rng.choice((0, 1, 2, 3, 9)))
    struct.pack_into("<I", data, 10, rng.choice((0, 54, 2**32 - 1)))
    return bytes(data)


def gif_bomb(rng: Dice) -> bytes:
    """Return a GIF whose canvas, frame or number of blocks is far larger than its data."""
    data = bytearray(_flat("GIF"))
    if rng.random() < 0.5:
        struct.pack_into("<HH", data, 6, *(rng.choice((0, 64, 700, 65_535)) for _ in range(2)))
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    if rng.random() < 0.5:
        blocks = rng.choice((b"\x21\xfe\x01x\0", b"\x21\xf9\x04\x01\0\0\0\0", b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"))
        return bytes(data[:at]) + blocks * rng.choice((100, 100_000)) + bytes(data[at:-9])
    frame = data.index(b"\x2c", at)
    struct.pack_into("<HHHH", data, frame + 1, *(rng.choice((0, 64, 3_000, 65_535)) for _ in range(4)))
    return bytes(data)


BUILDERS = (lying_isobmff, nested_boxes, lying_tiff, tiff_bomb, lying_bmp, gif_bomb)
