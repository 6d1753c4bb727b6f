"""Images are encoded with their profile and no other metadata, or rejected with numbers before any work."""

from __future__ import annotations

from io import BytesIO
from typing import get_args

import numpy as np
import pytest
from PIL import Image as PilImage

from preprocessing.codec import (
    MAX_OUTPUT_SIDES,
    Image,
    OutputFormat,
    UploadLimits,
    check_output,
    decode,
    describe_losses,
    encode,
    probe,
)
from preprocessing.errors import UnsupportedOutputError
from testing import images

LIMITS = UploadLimits(max_bytes=20_000_000, max_pixels=1_000_000, max_side=70_000)
PHOTO, ALPHA = images.draw_photo(24, 40), images.draw_alpha(24, 40)
GREY = np.repeat(images.draw_grey(24, 40)[..., np.newaxis], 3, axis=2)
RGB_PROFILE, GREY_PROFILE = images.icc_profile(b"RGB "), images.icc_profile(b"GRAY")
FORMATS = get_args(OutputFormat)


def reopen(data: bytes) -> PilImage.Image:
    opened = PilImage.open(BytesIO(data))
    opened.load()
    return opened


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        (Image(PHOTO), "RGB"),
        (Image(PHOTO, alpha=ALPHA), "RGBA"),
        (Image(GREY, is_grey=True), "L"),
        (Image(GREY, alpha=ALPHA, is_grey=True), "LA"),
    ],
)
def test_png_keeps_every_pixel_in_the_fewest_channels(image: Image, mode: str) -> None:
    opened = reopen(encode(image, "png"))
    assert opened.mode == mode
    again = decode(probe(encode(image, "png"), LIMITS))
    visible = slice(None) if image.alpha is None else image.alpha > 0
    assert (again.pixels[visible] == image.pixels[visible]).all()
    assert again.is_grey == image.is_grey
    assert (again.alpha is None) == (image.alpha is None)
    assert image.alpha is None or (np.asarray(again.alpha) == image.alpha).all()


@pytest.mark.parametrize("asked", FORMATS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (24, 40)])
def test_every_format_holds_every_shape(asked: OutputFormat, shape: tuple[int, int]) -> None:
    image = Image(images.draw_photo(*shape))
    opened = reopen(encode(image, asked))
    assert (opened.format, opened.height, opened.width) == (asked.upper(), *shape)


@pytest.mark.parametrize("asked", FORMATS)
def test_profile_is_written_and_no_other_metadata(asked: OutputFormat) -> None:
    opened = reopen(encode(Image(PHOTO, icc_profile=RGB_PROFILE), asked))
    assert opened.info["icc_profile"] == RGB_PROFILE
    assert not {"exif", "xmp", "comment", "dpi", "Software"} & opened.info.keys()
    assert not opened.getexif()
    assert "icc_profile" not in reopen(encode(Image(PHOTO), asked)).info


def test_jpeg_is_4_4_4_and_grey_jpeg_has_one_channel() -> None:
    layers = reopen(encode(Image(PHOTO), "jpeg")).layer  # type: ignore[attr-defined]
    assert [layer[1:3] for layer in layers] == [(1, 1)] * 3
    assert reopen(encode(Image(GREY, is_grey=True), "jpeg")).mode == "L"


@pytest.mark.parametrize("asked", ["jpeg", "webp", "avif"])
def test_higher_quality_is_nearer_and_larger(asked: OutputFormat) -> None:
    def distance(quality: int) -> tuple[float, int]:
        data = encode(Image(PHOTO), asked, quality)
        return float(np.abs(np.asarray(reopen(data)).astype(int) - PHOTO).mean()), len(data)

    (far, small), (near, large) = distance(20), distance(95)
    assert near < far
    assert large > small
    assert encode(Image(PHOTO), asked) == encode(Image(PHOTO), asked, 92)


def test_jpeg_lays_transparency_on_white_and_says_so() -> None:
    image = Image(np.zeros((16, 16, 3), np.uint8), alpha=np.zeros((16, 16), np.uint8))
    half = Image(np.zeros((16, 16, 3), np.uint8), alpha=np.full((16, 16), 128, np.uint8), is_grey=True)
    assert (np.asarray(reopen(encode(image, "jpeg"))) == 255).all()
    assert (np.abs(np.asarray(reopen(encode(half, "jpeg"))).astype(int) - 127) <= 1).all()
    assert describe_losses(image, "jpeg") == ("JPEG has no transparency: the image was put on a white background.",)
    assert describe_losses(image, "png") == describe_losses(image, "webp") == ()


def test_webp_keeps_alpha_exactly() -> None:
    assert (np.asarray(reopen(encode(Image(PHOTO, alpha=ALPHA), "webp")))[..., 3] == ALPHA).all()


def test_grey_profile_is_dropped_for_webp() -> None:
    image = Image(GREY, is_grey=True, icc_profile=GREY_PROFILE)
    assert "icc_profile" not in reopen(encode(image, "webp")).info
    assert "greyscale colour profile was dropped" in describe_losses(image, "webp")[0]
    assert reopen(encode(image, "png")).info["icc_profile"] == GREY_PROFILE
    assert describe_losses(image, "png") == ()


@pytest.mark.parametrize(
    ("asked", "side", "advice"),
    [
        ("webp", 16_384, "Use PNG or JPEG or AVIF"),
        ("jpeg", 65_501, "Use PNG"),
        ("avif", 32_769, "Use PNG or JPEG"),
        ("png", 2**31, "Send a smaller image"),
    ],
)
def test_side_over_the_formats_maximum_is_rejected(asked: OutputFormat, side: int, advice: str) -> None:
    with pytest.raises(
        UnsupportedOutputError, match=rf"{side} x 5 pixels; .* holds at most {side - 1:,} per side. {advice}\."
    ):
        check_output(side, 5, asked)
    check_output(side - 1, 5, asked)


@pytest.mark.parametrize("asked", ["webp", "jpeg", "avif"])
def test_longest_side_of_the_format_is_written(asked: OutputFormat) -> None:
    side = MAX_OUTPUT_SIDES[asked]
    assert reopen(encode(Image(np.zeros((1, side, 3), np.uint8)), asked)).size == (side, 1)
    with pytest.raises(UnsupportedOutputError):
        encode(Image(np.zeros((1, side + 1, 3), np.uint8)), asked)


def test_unknown_formats_and_qualities_are_rejected() -> None:
    with pytest.raises(UnsupportedOutputError, match="Unknown output format 'gif': use png, jpeg, webp or avif"):
        check_output(1, 1, "gif")  # type: ignore[arg-type]
    for quality in (0, 101, -5):
        with pytest.raises(UnsupportedOutputError, match=f"Invalid quality {quality}: use a number between 1 and 100"):
            check_output(1, 1, "jpeg", quality)


def test_image_of_the_wrong_shape_cannot_be_made() -> None:
    with pytest.raises(ValueError, match=r"not uint8 \[4, 4\]"):
        Image(np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"alpha must be uint8 \[4, 4\]"):
        Image(np.zeros((4, 4, 3), np.uint8), alpha=np.zeros((4, 5), np.uint8))
