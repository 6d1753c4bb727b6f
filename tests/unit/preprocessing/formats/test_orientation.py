"""The orientation is found wherever a phone, Finder or ImageMagick puts it, and only there."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImage
from PIL import ImageOps

from preprocessing.codec import Upload, decode, probe
from preprocessing.formats.container import MAX_XMP_BYTES
from preprocessing.formats.exif import find_orientation
from testing import images
from testing.data import UPLOADS
from testing.decoding import LIMITS
from testing.orientation_images import AS_PILLOW, EXIF, PHOTO, XMP, itxt, jpeg, png, raw_profile


def upload(data: bytes) -> Upload:
    return probe(data, LIMITS)


def turned_by_pillow(data: bytes) -> images.Pixels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = PilImage.open(BytesIO(data))
        return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))


@pytest.mark.parametrize("name", AS_PILLOW)
def test_image_is_turned_as_pillow_turns_it(name: str) -> None:
    pixels = decode(upload(AS_PILLOW[name])).pixels
    expected = turned_by_pillow(AS_PILLOW[name])
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() == 0
    if "wins" not in name and "another" not in name and "no flag" not in name:
        assert pixels.shape == PHOTO.shape


@pytest.mark.parametrize("padding", [b"\0", b"\xff", b"A"])
def test_byte_after_exif_may_have_any_value(padding: bytes) -> None:
    """As in Chromium; Pillow reads 0 only."""
    turned = upload(jpeg(b"Exif\0" + padding + EXIF(6)))
    assert (turned.orientation, turned.is_turned_by_browsers) == (6, True)


def test_exif_behind_the_scan_of_a_jpeg_is_ignored() -> None:
    segment = images.insert_jpeg_segment(b"\xff\xd8", 0xE1, b"Exif\0\0" + EXIF(6))[2:]
    whole = jpeg()
    assert upload(whole[:-2] + segment + whole[-2:]).orientation == 1


@pytest.mark.parametrize("chunk", [(b"eXIf", EXIF(6)), itxt(XMP(6)), raw_profile(b"zTXt", EXIF(6))])
def test_chunk_with_a_wrong_checksum_is_ignored(chunk: tuple[bytes, bytes]) -> None:
    damaged = bytearray(png(chunk))
    damaged[damaged.index(chunk[0]) + 4 + len(chunk[1])] ^= 1
    assert upload(bytes(damaged)).orientation == 1


@pytest.mark.parametrize(
    ("name", "is_turned"),
    [
        ("eXIf", True),
        ("JPEG EXIF", True),
        ("JPEG empty EXIF first", True),
        ("eXIf 1 wins over XMP", True),
        ("eXIf behind the pixels", False),
        ("eXIf with a JPEG's header", False),
        ("PNG XMP attribute", False),
        ("raw profile zTXt", False),
        ("JPEG XMP", False),
        ("WebP EXIF", False),
        ("WebP XMP", False),
    ],
)
def test_upload_knows_whether_browsers_turn_it(name: str, *, is_turned: bool) -> None:
    """Measured in Chromium 156."""
    assert upload(AS_PILLOW[name]).is_turned_by_browsers == is_turned


@pytest.mark.parametrize(
    "name", ["o6_xmp.png", "o6_rawprofile_exif.png", "o6_exif_pad_ff.jpg", "o6_empty_first_exif.jpg"]
)
def test_reported_files_come_out_upright(name: str) -> None:
    sideways = upload((UPLOADS / name).read_bytes())
    assert (sideways.width, sideways.height, sideways.orientation) == (48, 32, 6)


@pytest.mark.parametrize(
    "build",
    [
        itxt,
        lambda text: itxt(zlib.compress(text), b"\1\0"),
        lambda text: (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
    ],
)
def test_text_over_the_limit_is_ignored(build: Callable[[bytes], tuple[bytes, bytes]]) -> None:
    for text in (b" " * MAX_XMP_BYTES + XMP(6), b"\nexif\n1\n" + b"0" * MAX_XMP_BYTES):
        assert upload(png(build(text))).orientation == 1


@pytest.mark.parametrize(
    "xmp",
    [
        b"tiff:Orientation",
        b'tiff:Orientation="',
        b"tiff:Orientation=6",
        b'tiff:Orientation="x"',
        b"tiff:Orientation" + b" " * 90_000,
        b"Orientation='6'",
    ],
)
def test_xmp_without_a_readable_orientation_means_1(xmp: bytes) -> None:
    assert find_orientation(b"", xmp, is_exif_read_by_browsers=True) == (1, True)


@pytest.mark.parametrize("xmp", [b'tiff:Orientation = "6"', b"tiff:Orientation='6'", b"<tiff:Orientation> 6 </"])
def test_other_spellings_of_xmp_are_read(xmp: bytes) -> None:
    assert find_orientation(b"", xmp, is_exif_read_by_browsers=True) == (6, False)


@given(st.binary(max_size=300), st.sampled_from([b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b""]))
def test_no_text_makes_the_reader_fail(tail: bytes, keyword: bytes) -> None:
    for kind in (b"tEXt", b"zTXt", b"iTXt"):
        assert upload(png((kind, keyword + tail))).orientation in range(1, 9)
        assert upload(png((kind, keyword + b"\0" + zlib.compress(b"\nexif\n" + tail)))).orientation in range(1, 9)
