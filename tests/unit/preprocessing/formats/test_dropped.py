"""The resolution is kept, and one sentence names all that is not in the result."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImage
from PIL.ExifTags import Base

from preprocessing.codec import MAX_OUTPUT_SIDES, OutputFormat, describe_losses, encode
from preprocessing.formats.exif import describe_exif, read_dpi
from testing import images
from testing.decoding import read
from testing.metadata_images import iptc, photoshop

PHOTO, ALPHA = images.draw_photo(16, 24), images.draw_alpha(16, 24)
GPS = images.exif_with_orientation(1, gps=True)


def exif(x: int, y: int, unit: int, *, maker: str = "") -> bytes:
    """Return the EXIF that Pillow writes for a resolution."""
    tags = PilImage.Exif()
    tags.update({Base.XResolution: x, Base.YResolution: y, Base.ResolutionUnit: unit})
    if maker:
        tags[Base.Make] = maker
    return tags.tobytes()


def dpi_in(data: bytes, output: OutputFormat) -> Any:
    return PilImage.open(BytesIO(encode(read(data), output))).info.get("dpi")


@pytest.mark.parametrize("dpi", [(72, 72), (96, 96), (300, 300), (300, 150), (1, 65_535)])
@pytest.mark.parametrize("source", ["png", "jpeg"])
def test_resolution_is_kept(source: str, dpi: tuple[int, int]) -> None:
    data = getattr(images, f"encode_{source}")(PHOTO, dpi=dpi)
    assert dpi_in(data, "jpeg") == dpi
    assert dpi_in(data, "png") == pytest.approx(dpi, abs=0.02)
    assert read(data).notes == ()
    assert all(describe_losses(read(data), output) == () for output in MAX_OUTPUT_SIDES)
    webp = PilImage.open(BytesIO(encode(read(data), "webp"))).getexif()
    assert (webp[Base.XResolution], webp[Base.YResolution]) == pytest.approx(dpi, abs=0.02)
    assert webp[Base.ResolutionUnit] == 2


def test_resolution_of_a_png_is_kept_exactly() -> None:
    data = images.insert_png_chunk(images.encode_png(PHOTO), b"pHYs", struct.pack(">IIB", 11_811, 3_937, 1))
    result = encode(read(data), "png")
    assert result[result.index(b"pHYs") + 4 :][:9] == struct.pack(">IIB", 11_811, 3_937, 1)
    assert result.index(b"pHYs") < result.index(b"IDAT")


def test_resolution_per_centimetre_is_converted() -> None:
    jpeg = bytearray(images.encode_jpeg(PHOTO, dpi=(100, 100)))
    jpeg[jpeg.index(b"JFIF") + 7] = 2
    assert dpi_in(bytes(jpeg), "jpeg") == (254, 254)


@pytest.mark.parametrize(("unit", "expected"), [(2, (300, 200)), (3, (762, 508)), (1, None)])
def test_resolution_in_exif_counts_where_the_format_has_none(unit: int, expected: tuple[int, int] | None) -> None:
    block = exif(300, 200, unit)
    for name in ("jpeg", "webp", "png"):
        data = getattr(images, f"encode_{name}")(PHOTO, exif=block)
        assert dpi_in(data, "jpeg") == expected
    assert dpi_in(images.encode_jpeg(PHOTO, exif=block, dpi=(72, 72)), "jpeg") == (72, 72)


def test_resolution_is_turned_with_the_pixels() -> None:
    data = images.encode_png(PHOTO, dpi=(300, 150), exif=images.exif_with_orientation(6))
    assert dpi_in(data, "jpeg") == (150, 300)


@pytest.mark.parametrize(
    "data",
    [
        images.insert_png_chunk(images.encode_png(PHOTO), b"pHYs", struct.pack(">IIB", 3, 1, 0)),
        images.insert_png_chunk(images.encode_png(PHOTO), b"pHYs", struct.pack(">IIB", 2**31, 2**31, 1)),
        images.insert_png_chunk(images.encode_png(PHOTO), b"pHYs", struct.pack(">IIB", 0, 11_811, 1)),
        images.insert_png_chunk(images.encode_png(PHOTO), b"pHYs", b"\0\0\1"),
        images.encode_jpeg(PHOTO),
    ],
    ids=["aspect", "huge", "zero", "short", "none"],
)
def test_impossible_resolution_is_ignored(data: bytes) -> None:
    assert read(data).dpi is None
    assert b"pHYs" not in encode(read(data), "png")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (images.encode_jpeg(PHOTO, exif=b"Exif\0\0" + GPS), "EXIF (location)"),
        (images.encode_jpeg(PHOTO, exif=exif(300, 300, 2, maker="x")), "EXIF"),
        (images.encode_png(PHOTO, exif=GPS), "EXIF (location)"),
        (images.encode_webp(PHOTO, exif=GPS, xmp=b"<x:xmpmeta/>"), "EXIF (location), XMP"),
        (images.encode_jpeg(PHOTO, comment=b"hello"), "text"),
        (images.insert_png_chunk(images.encode_png(PHOTO), b"tEXt", b"Author\0me"), "text"),
        (images.png_with_xmp(PHOTO, b"<x:xmpmeta/>"), "XMP"),
        (images.insert_jpeg_segment(images.encode_jpeg(PHOTO), 0xED, b"Photoshop 3.0\x008BIM"), "data of Photoshop"),
        (images.insert_jpeg_segment(images.encode_jpeg(PHOTO), 0xED, photoshop(iptc())), "IPTC"),
        (images.insert_jpeg_segment(images.encode_jpeg(PHOTO), 0xE2, b"MPF\0II*\0"), "further images"),
        (
            images.insert_jpeg_segment(images.encode_jpeg(PHOTO), 0xE2, b"urn:iso:std:iso:ts:21496:-1\0"),
            "the HDR gain map",
        ),
        (images.encode_jpeg(PHOTO, xmp=b'<x hdrgm:Version="1.0"/>', comment=b"a"), "XMP, text, the HDR gain map"),
        (images.encode_png(np.dstack((PHOTO, ALPHA))), "the colours under full transparency"),
    ],
)
def test_one_sentence_names_what_is_not_in_the_result(data: bytes, words: str) -> None:
    assert read(data).notes == (f"Not in the result: {words}.",)


@pytest.mark.parametrize(
    "data",
    [
        images.encode_jpeg_with_orientation(PHOTO, 6),
        images.encode_jpeg(PHOTO, exif=exif(300, 300, 2)),
        images.encode_png(np.dstack((np.where(ALPHA[..., np.newaxis] > 0, PHOTO, 0), ALPHA))),
        images.encode_png(np.dstack((PHOTO, np.maximum(ALPHA, 1)))),
    ],
    ids=["orientation", "resolution", "one colour", "no alpha 0"],
)
def test_nothing_is_said_when_nothing_is_lost(data: bytes) -> None:
    assert read(data).notes == ()


@given(st.binary(max_size=200), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08"]))
def test_no_exif_makes_the_readers_fail(tail: bytes, start: bytes) -> None:
    assert describe_exif(start + tail) in ("", "EXIF", "EXIF (location)")
    dpi = read_dpi(start + tail)
    assert dpi is None or round(min(dpi)) >= 1
