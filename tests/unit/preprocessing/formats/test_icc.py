"""A valid profile of the right colour space is kept byte for byte; any other is dropped with a note."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageCms

from preprocessing.codec import Image, UploadLimits, decode, probe
from preprocessing.formats.container import MAX_ICC_BYTES
from preprocessing.formats.icc import keep_profile
from testing import images

LIMITS = UploadLimits(max_bytes=20_000_000, max_pixels=1_000_000, max_side=5_000)
PHOTO, GREY = images.draw_photo(16, 24), images.draw_grey(16, 24)
RGB_PROFILE, GREY_PROFILE = images.icc_profile(b"RGB "), images.icc_profile(b"GRAY")


def read(data: bytes) -> Image:
    return decode(probe(data, LIMITS))


def test_real_srgb_profile_is_sound() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert keep_profile(srgb, is_grey=False) == (srgb, "")


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_profile_comes_through_every_format(name: str) -> None:
    image = read(getattr(images, f"encode_{name}")(PHOTO, icc_profile=RGB_PROFILE))
    assert (image.icc_profile, image.notes) == (RGB_PROFILE, ())


@pytest.mark.parametrize("name", ["png", "jpeg"])
def test_grey_profile_stays_with_grey_pixels(name: str) -> None:
    image = read(getattr(images, f"encode_{name}")(GREY, icc_profile=GREY_PROFILE))
    assert (image.icc_profile, image.is_grey, image.notes) == (GREY_PROFILE, True, ())


def test_profile_in_many_jpeg_segments_is_joined_in_their_order() -> None:
    large = images.icc_profile(n_bytes=200_000)
    assert read(images.encode_jpeg(PHOTO, icc_profile=large)).icc_profile == large


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (images.encode_png(GREY, icc_profile=RGB_PROFILE), "for RGB and the pixels are greyscale"),
        (images.encode_jpeg(PHOTO, icc_profile=GREY_PROFILE), "for greyscale and the pixels are RGB"),
        (images.encode_png(PHOTO, icc_profile=images.icc_profile(b"CMYK")), "for CMYK and the pixels are RGB"),
        (images.encode_png(PHOTO, icc_profile=b"junk" * 50), "damaged"),
        (images.insert_png_chunk(images.encode_png(PHOTO), b"iCCP", b"name\0\0not zlib"), "damaged"),
        (images.insert_png_chunk(images.encode_png(PHOTO), b"iCCP", b""), "damaged"),
        (images.encode_png(PHOTO, icc_profile=images.icc_profile(n_bytes=MAX_ICC_BYTES + 1)), "1,048,576 bytes"),
    ],
)
def test_mismatching_profile_is_dropped_with_a_note(data: bytes, note: str) -> None:
    image = read(data)
    assert image.icc_profile is None
    assert [note in sentence for sentence in image.notes] == [True]
    assert "was dropped" in image.notes[0]


@pytest.mark.parametrize("space", [b"CMYK", b"RGB "])
def test_no_profile_of_a_cmyk_upload_is_kept(space: bytes) -> None:
    image = read(images.cmyk_jpeg(PHOTO, icc_profile=images.icc_profile(space)))
    assert image.icc_profile is None
    assert "its colour profile is broken" in image.notes[0]


def test_bytes_behind_the_announced_size_are_cut() -> None:
    assert keep_profile(RGB_PROFILE + b"hidden", is_grey=False) == (RGB_PROFILE, "")


@pytest.mark.parametrize("at", [0, 12, 20, 36, 128, 136, 140])
def test_profile_whose_tables_point_outside_is_damaged(at: int) -> None:
    damaged = bytearray(RGB_PROFILE)
    struct.pack_into(">I", damaged, at, 0xFFFF_FFF0)
    assert keep_profile(bytes(damaged), is_grey=False)[0] is None


@given(st.binary(max_size=300), st.integers(0, 180))
def test_no_bytes_make_the_check_fail(junk: bytes, at: int) -> None:
    profile, note = keep_profile(RGB_PROFILE[:at] + junk, is_grey=False)
    assert (profile is None) == bool(note)
