"""Containers: what reaches a decoder, what is rejected as corrupt, and how much memory bombs need."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from preprocessing.codec import decode, probe
from preprocessing.errors import UnreadableImageError
from preprocessing.formats.container import MAX_ICC_BYTES, MAX_PARTS, Container
from preprocessing.formats.jpeg import MAX_SCANS, read_jpeg
from preprocessing.formats.png import read_png
from preprocessing.formats.webp import read_webp
from testing import images
from testing.decoding import LIMITS, read, refusal

PHOTO = images.draw_photo(16, 24)
BOMB = zlib.compress(bytes(64_000_000), 9)
SECRET = b"52 Secret Lane"


def replace_header(png: bytes, **fields: int) -> bytes:
    names = ("width", "height", "depth", "colour", "compression", "filter", "interlace")
    values = dict(zip(names, struct.unpack(">IIBBBBB", png[16:29]), strict=True)) | fields
    return png[:8] + images.png_chunk(b"IHDR", struct.pack(">IIBBBBB", *values.values())) + png[33:]


@pytest.mark.parametrize(
    ("data", "reader"),
    [
        (images.insert_png_chunk(images.encode_png(PHOTO), b"tEXt", b"Author\0" + SECRET), read_png),
        (images.insert_png_chunk(images.encode_png(PHOTO), b"eXIf", b"MM\0*" + SECRET), read_png),
        (images.insert_png_chunk(images.palette_png(PHOTO), b"iTXt", SECRET), read_png),
        (images.insert_jpeg_segment(images.encode_jpeg(PHOTO), 0xFE, SECRET), read_jpeg),
        (images.insert_jpeg_segment(images.encode_jpeg(PHOTO), 0xE1, b"Exif\0\0" + SECRET), read_jpeg),
        (images.insert_jpeg_segment(images.encode_jpeg(PHOTO), 0xE0, b"JFXX\0" + SECRET), read_jpeg),
        (images.encode_jpeg(PHOTO) + images.encode_jpeg(PHOTO, comment=SECRET), read_jpeg),
        (images.encode_webp(PHOTO, exif=SECRET, xmp=SECRET), read_webp),
        (images.add_webp_chunk(images.animated_webp([PHOTO, ~PHOTO]), b"XMP ", SECRET), read_webp),
        (images.encode_png(PHOTO) + SECRET, read_png),
    ],
)
def test_metadata_never_reach_a_decoder(data: bytes, reader: Callable[[bytes], Container]) -> None:
    required_chunks = b"".join(reader(data).required_chunks)
    assert SECRET in data
    assert SECRET not in required_chunks
    assert read(data).pixels.shape == PHOTO.shape


@pytest.mark.parametrize(
    "bomb",
    [
        images.insert_png_chunk(images.encode_png(PHOTO), b"zTXt", b"Comment\0\0" + BOMB, copies=10),
        images.insert_png_chunk(images.encode_png(PHOTO), b"iTXt", b"Comment\0\1\0\0\0" + BOMB, copies=10),
        images.insert_png_chunk(images.encode_png(PHOTO), b"iCCP", b"x\0\0" + BOMB),
        images.insert_png_chunk(images.encode_png(PHOTO), b"tEXt", b"Comment\0" + bytes(5_000_000)),
        images.insert_png_chunk(images.encode_png(PHOTO), b"tIME", b"", copies=MAX_PARTS // 2),
        images.insert_jpeg_segment(images.encode_jpeg(PHOTO), 0xFE, bytes(65_000), copies=100),
        images.insert_jpeg_segment(images.encode_jpeg(PHOTO), 0xE2, b"ICC_PROFILE\0\1\1" + bytes(65_000), copies=99),
        images.add_webp_chunk(images.animated_webp([PHOTO, ~PHOTO]), b"ANMF", bytes(16), copies=20_000),
        images.add_webp_chunk(images.encode_webp(PHOTO, exif=b"x"), b"ICCP", bytes(5_000_000)),
    ],
    ids=["zTXt", "iTXt", "iCCP", "tEXt", "chunks", "comments", "profile-parts", "frames", "big-profile"],
)
def test_bomb_in_the_metadata_decodes_normally_in_bounded_memory(bomb: bytes) -> None:
    read(images.encode_png(PHOTO))  # imports and caches do not count
    tracemalloc.start()
    try:
        image = read(bomb)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert image.pixels.shape == PHOTO.shape
    assert image.icc_profile is None
    assert peak_bytes < 3 * MAX_ICC_BYTES + 100 * MAX_PARTS  # the limit on profiles, and a view for each part


def test_too_many_parts_are_rejected_unparsed() -> None:
    assert f"at most {MAX_PARTS:,} chunks" in refusal(
        images.insert_png_chunk(images.encode_png(PHOTO), b"tIME", b"", copies=MAX_PARTS)
    )


def test_excess_pixels_are_not_inflated() -> None:
    rows = b"".join(b"\0" + bytes(24 * 3) for _ in range(16))
    packed = zlib.compress(rows + bytes(64_000_000), 9)
    png = images.png_header_only(16, 24)
    tracemalloc.start()
    try:
        image = read(png[:33] + images.png_chunk(b"IDAT", packed) + png[33:])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not image.pixels.any()
    assert peak_bytes < 1_000_000


def test_jpeg_with_too_many_scans_is_rejected() -> None:
    jpeg = images.encode_jpeg(PHOTO, progressive=True)
    last_scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    assert read(jpeg[:-2] + last_scan * 0 + jpeg[-2:]).pixels.shape == PHOTO.shape
    assert f"{MAX_SCANS} is the limit" in refusal(jpeg[:-2] + last_scan * MAX_SCANS + jpeg[-2:])


def test_flipped_bit_in_a_png_fails_its_checksum() -> None:
    png = bytearray(images.encode_png(PHOTO))
    png[png.index(b"IDAT") + 40] ^= 1
    assert "checksum of its IDAT chunk is wrong" in refusal(bytes(png))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 0}, "0 x 16"),
        ({"height": 0}, "24 x 0"),
        ({"depth": 3}, "colour type 2 with 3 bits"),
        ({"colour": 5}, "colour type 5"),
        ({"interlace": 9}, "Truncated or corrupt PNG"),
        ({"width": 25}, "Truncated or corrupt PNG"),
    ],
)
def test_png_whose_header_lies_is_rejected(fields: dict[str, int], words: str) -> None:
    assert words in refusal(replace_header(images.encode_png(PHOTO), **fields))


def test_second_header_cannot_smuggle_in_another_size() -> None:
    png = images.encode_png(PHOTO)
    second = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    assert "second IHDR" in refusal(images.insert_png_chunk(png, b"IHDR", second))
    jpeg = images.encode_jpeg(PHOTO)
    frame = b"\x08" + struct.pack(">HH", 30_000, 30_000) + b"\3" + bytes((1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0))
    late = jpeg.index(b"\xff\xda")
    assert "second frame header" in refusal(jpeg[:late] + b"\xff\xc0\0\x11" + frame + jpeg[late:])


def test_webp_with_another_canvas_size_is_rejected() -> None:
    webp = images.encode_webp(PHOTO, icc_profile=images.icc_profile())
    smaller = webp[:24] + struct.pack("<I", 7)[:3] * 2 + webp[30:]
    assert "corrupt" in refusal(smaller)


def test_decoded_size_must_match_the_probed_size() -> None:
    upload = probe(images.encode_png(PHOTO), LIMITS)
    mismatched = dataclasses.replace(upload, container=dataclasses.replace(upload.container, width=99))
    with pytest.raises(UnreadableImageError, match="99 x 16 pixels in its header and 24 x 16 in its data"):
        decode(mismatched)


def test_header_of_a_webp_stops_announcing_what_was_dropped() -> None:
    webp = images.encode_webp(PHOTO, exif=b"x", xmp=b"x", icc_profile=images.icc_profile())
    announced = 0x20 | 0x08 | 0x04  # profile, EXIF, XMP
    assert webp[20] & announced == announced
    assert b"".join(read_webp(webp).required_chunks)[20] & announced == 0


def test_png_without_pixels_and_a_jpeg_without_a_scan_say_so() -> None:
    assert "holds no pixels" in refusal(images.png_header_only(4, 4))
    jpeg = images.encode_jpeg(PHOTO)
    assert "holds no pixels" in refusal(jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9")


def test_jpeg_of_two_components_or_twelve_bits_is_rejected() -> None:
    jpeg = images.encode_jpeg(PHOTO)
    frame = jpeg.index(b"\xff\xc0") + 4
    assert "2 colour components; 1, 3 or 4" in refusal(jpeg[: frame + 5] + b"\2" + jpeg[frame + 6 :])
    assert "12 bits per sample; only 8 are supported" in refusal(jpeg[:frame] + b"\x0c" + jpeg[frame + 1 :])


def test_bytes_after_the_end_are_ignored_as_every_viewer_does() -> None:
    for data in (images.encode_png(PHOTO), images.encode_jpeg(PHOTO), images.encode_webp(PHOTO)):
        assert (read(data + b"\xff\xd8\xff trailing").pixels == read(data).pixels).all()
