"""TIFF: the first page in every kind that scanners and editors write, and what is refused."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import TiffImagePlugin

from preprocessing.codec import OutputFormat, decode, encode, probe
from preprocessing.errors import TooManyPixelsError
from testing import images
from testing.decoding import LIMITS, read, refusal
from testing.metadata_images import iptc, xmp_packet

PHOTO = images.draw_photo(26, 40)
ALPHA = images.draw_alpha(26, 40)


def encode_tiff(pixels: images.Pixels, **options: Any) -> bytes:
    return images.save(PilImage.fromarray(pixels), "TIFF", **options)


def with_tag(tag: int, value: bytes) -> bytes:
    """Return a TIFF whose tag, which must be there, has another value in its entry."""
    data = encode_tiff(PHOTO)
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, place)[0] == tag:
            return data[: place + 8] + value.ljust(4, b"\0") + data[place + 12 :]
    raise ValueError(tag)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_pixels_are_exact_in_every_lossless_compression(compression: str) -> None:
    image = read(encode_tiff(PHOTO, compression=compression, dpi=(300, 150)))
    assert (image.pixels == PHOTO).all()
    assert image.dpi == pytest.approx((300, 150))
    assert image.notes == ()


def test_grey_and_black_and_white_stay_grey() -> None:
    grey = images.draw_grey(26, 40)
    image = read(encode_tiff(grey))
    assert image.is_grey
    assert (image.pixels[..., 1] == grey).all()
    fax = read(images.save(PilImage.fromarray(grey).convert("1"), "TIFF", compression="group4"))
    assert fax.is_grey
    assert sorted(np.unique(fax.pixels)) == [0, 255]


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_16_bits_are_reduced_to_8_with_a_note(byte_order: str) -> None:
    samples = (np.arange(26 * 40).reshape(26, 40) * 63).astype(f"{byte_order}u2")
    mode = "I;16" if byte_order == "<" else "I;16B"
    data = images.save(PilImage.frombytes(mode, (40, 26), samples.tobytes()), "TIFF")
    image = read(data)
    assert (image.pixels[..., 0] == np.rint(samples.astype(float) / 257)).all()
    assert image.notes == ("The image has 16 bits per channel: it was reduced to 8.",)


def test_alpha_is_kept() -> None:
    image = read(encode_tiff(np.dstack((PHOTO, ALPHA))))
    assert image.alpha is not None
    assert (image.alpha == ALPHA).all()
    assert (image.pixels[ALPHA == 255] == PHOTO[ALPHA == 255]).all()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int, compression: str) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = orientation
    stored = images.store_for_orientation(PHOTO, orientation)
    image = read(encode_tiff(stored, tiffinfo=tags, compression=compression))
    assert (image.pixels == PHOTO).all()


def test_profile_is_kept_and_what_is_dropped_is_named() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[315], tags[700], tags[33723] = "Somebody", xmp_packet(), iptc()
    image = read(encode_tiff(PHOTO, icc_profile=images.icc_profile(), tiffinfo=tags))
    assert image.icc_profile == images.icc_profile()
    assert image.notes == ("Not in the result: EXIF, XMP, IPTC.",)


@pytest.mark.parametrize("output", ["png", "jpeg", "webp"])
def test_metadata_is_kept_on_request(output: OutputFormat) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[315], tags[274], tags[700], tags[33723] = "Somebody", 6, xmp_packet(), iptc()
    data = encode_tiff(images.store_for_orientation(PHOTO, 6), tiffinfo=tags, dpi=(300, 300))
    image = decode(probe(data, LIMITS), keeps_metadata=True)
    assert (image.notes, image.metadata.iptc) == ((), iptc())
    result = PilImage.open(BytesIO(encode(image, output)))
    exif = result.getexif()
    assert (exif[315], exif[274], exif[282]) == ("Somebody", 1, 300)
    assert not exif.keys() & {256, 257, 258, 259, 262, 273, 277, 278, 279}
    assert b"xmp:Rating" in encode(image, output)


def test_metadata_that_cannot_be_kept_is_named() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[315], tags[700], tags[33723], tags[34377] = "a" * 70_000, b"<x/>", b"IPTC", b"8BIM"
    image = decode(probe(encode_tiff(PHOTO, tiffinfo=tags), LIMITS), keeps_metadata=True)
    assert image.notes == ("Not in the result: XMP, EXIF, IPTC, data of Photoshop.",)


def test_further_pages_are_counted() -> None:
    pages = [PilImage.fromarray(~PHOTO)] * 2
    image = read(encode_tiff(PHOTO, save_all=True, append_images=pages))
    assert (image.pixels == PHOTO).all()
    assert image.notes == ("The file has 3 pages: only the first was used.",)


def test_directories_in_a_circle_are_counted_once() -> None:
    data = encode_tiff(PHOTO)
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    end = at + 2 + 12 * count
    assert probe(data[:end] + data[4:8] + data[end + 4 :], LIMITS).container.pages == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (images.save(PilImage.fromarray(PHOTO[..., 0].astype(np.float32)), "TIFF"), "samples in floating point"),
        (images.save(PilImage.fromarray(PHOTO[..., 0].astype(np.int32)), "TIFF"), "signed integers"),
        (images.save(PilImage.fromarray(PHOTO).convert("LAB"), "TIFF"), "photometric interpretation 8"),
        (with_tag(262, struct.pack("<H", 32_803)), "a camera's raw file"),
        (with_tag(256, struct.pack("<I", 0)), "no image size found"),
        (b"II+\0\x08\0\0\0" + bytes(40), "BigTIFF"),
    ],
)
def test_kind_that_is_not_read_is_refused_in_words(data: bytes, words: str) -> None:
    assert words in refusal(data)


def test_size_is_checked_in_the_header() -> None:
    with pytest.raises(TooManyPixelsError, match="70000 x 26"):
        probe(with_tag(256, struct.pack("<I", 70_000)), LIMITS)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (with_tag(257, struct.pack("<I", 2_600)), "its strips hold 26 of 2,600 rows"),
        (with_tag(273, struct.pack("<I", 1_000_000)), "its pixels lie outside of the file"),
        (with_tag(279, struct.pack("<I", 1_000_000)), "its pixels lie outside of the file"),
    ],
)
def test_rows_that_are_not_in_the_file_are_refused(data: bytes, words: str) -> None:
    assert words in refusal(data)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_truncated_tiff_is_refused(compression: str, keep: float) -> None:
    data = encode_tiff(images.draw_photo(64, 64), compression=compression)
    assert "TIFF" in refusal(images.truncated(data, keep))
