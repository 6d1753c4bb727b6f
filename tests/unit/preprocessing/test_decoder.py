"""Every kind of upload becomes the pixels that a viewer shows, and notes list what was changed."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import UnidentifiedImageError

from preprocessing.codec import Image, Pixels, UploadLimits, decode, probe
from preprocessing.decoder import _decoder_errors
from preprocessing.errors import TooManyPixelsError, UnreadableImageError
from testing import images

LIMITS = UploadLimits(max_bytes=20_000_000, max_pixels=1_000_000, max_side=5_000)
PHOTO, GREY, ALPHA = images.draw_photo(24, 40), images.draw_grey(24, 40), images.draw_alpha(24, 40)


def read(data: bytes) -> Image:
    return decode(probe(data, LIMITS))


def read_alpha(image: Image) -> Pixels:
    assert image.alpha is not None
    return image.alpha


def max_difference(image: Image, pixels: Pixels) -> int:
    """Return the maximum difference of visible pixels."""
    wide = pixels if pixels.ndim == 3 else np.repeat(pixels[..., np.newaxis], 3, axis=2)
    seen = np.ones(wide.shape[:2], bool) if image.alpha is None else image.alpha > 0
    return int(np.abs(image.pixels.astype(int) - wide)[seen].max())


def spread(samples: Pixels, depth: int) -> Pixels:
    return (samples.astype(int) * 255 // (2**depth - 1)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(24, 40), (1, 1), (1, 17), (17, 1)])
@pytest.mark.parametrize("name", ["png", "webp"])
def test_lossless_colour_is_read_bit_for_bit(name: str, shape: tuple[int, int]) -> None:
    photo = images.draw_photo(*shape)
    image = read(getattr(images, f"encode_{name}")(photo))
    assert (image.pixels == photo).all()
    assert image.pixels.flags.c_contiguous
    assert image.pixels.flags.writeable
    assert (image.alpha, image.is_grey, image.icc_profile, image.notes) == (None, False, None, ())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_jpeg_is_read(options: dict[str, bool]) -> None:
    smooth = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[:, np.newaxis, np.newaxis], (1, 48, 3))
    assert max_difference(read(images.encode_jpeg(smooth, **options)), smooth) <= 3


def test_interlaced_png_is_read() -> None:
    assert (read(images.interlaced_png(PHOTO)).pixels == PHOTO).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied(orientation: int) -> None:
    stored = images.store_for_orientation(PHOTO, orientation)
    exif = images.exif_with_orientation(orientation, gps=True)
    assert (read(images.encode_png(stored, exif=exif)).pixels == PHOTO).all()
    assert (read(images.encode_webp(stored, exif=exif)).pixels == PHOTO).all()
    jpeg = read(images.encode_jpeg_with_orientation(PHOTO, orientation))
    assert jpeg.pixels.shape == PHOTO.shape
    assert np.abs(jpeg.pixels.astype(int) - PHOTO).mean() < 4


def test_alpha_is_turned_with_the_pixels() -> None:
    rgba = images.store_for_orientation(np.dstack((PHOTO, ALPHA)), 6)
    image = read(images.encode_png(rgba, exif=images.exif_with_orientation(6)))
    assert np.array_equal(read_alpha(image), ALPHA)
    assert max_difference(image, PHOTO) == 0


def test_greyscale_is_read_as_grey() -> None:
    assert read(images.encode_png(GREY)).is_grey
    assert max_difference(read(images.encode_png(GREY)), GREY) == 0
    assert read(images.encode_jpeg(GREY)).is_grey
    assert np.abs(read(images.encode_jpeg(GREY)).pixels[..., 0].astype(int) - GREY).mean() < 4


def test_grey_with_alpha_keeps_both() -> None:
    image = read(images.encode_png(np.dstack((GREY, ALPHA))))
    assert image.is_grey
    assert np.array_equal(read_alpha(image), ALPHA)
    assert max_difference(image, GREY) == 0


@pytest.mark.parametrize("name", ["png", "webp"])
def test_colour_with_alpha_keeps_both(name: str) -> None:
    image = read(getattr(images, f"encode_{name}")(np.dstack((PHOTO, ALPHA))))
    assert not image.is_grey
    assert np.array_equal(read_alpha(image), ALPHA)
    assert max_difference(image, PHOTO) == 0


def test_opaque_alpha_is_dropped() -> None:
    assert read(images.encode_png(np.dstack((PHOTO, np.full_like(GREY, 255))))).alpha is None


def test_colour_under_alpha_0_comes_from_the_visible_pixels() -> None:
    red = np.zeros((24, 40, 3), np.uint8)
    red[ALPHA > 0] = (200, 10, 10)
    image = read(images.encode_png(np.dstack((red, ALPHA))))
    assert (image.pixels == (200, 10, 10)).all()


def test_one_bit_images_become_black_and_white() -> None:
    image = read(images.one_bit_png(GREY > 99))
    assert image.is_grey
    assert max_difference(image, np.where(GREY > 99, 255, 0).astype(np.uint8)) == 0


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_below_8_bits_uses_all_levels(depth: int) -> None:
    samples = np.arange(16, dtype=np.uint8).reshape(2, 8) % (2**depth)
    bits = np.unpackbits(samples[..., np.newaxis], axis=2)[..., 8 - depth :].reshape(2, -1)
    rows = np.packbits(bits, axis=1).tobytes()
    key = images.png_chunk(b"tRNS", bytes((0, 2**depth - 1)))
    image = read(images.raw_png(2, 8, depth, 0, rows, [key]))
    assert image.is_grey
    assert ((read_alpha(image) == 0) == (samples == 2**depth - 1)).all()
    assert max_difference(image, spread(samples, depth)) == 0


def test_16_bit_grey_is_rounded_to_8_with_a_note() -> None:
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = read(images.grey16_png(samples))
    assert image.is_grey
    assert max_difference(image, np.rint(samples / 257).astype(np.uint8)) == 0
    assert image.notes == ("The image has 16 bits per channel: it was reduced to 8.",)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bits_of_any_kind_are_reduced_with_a_note(colour_type: int, channels: int) -> None:
    levels = np.arange(6 * 5 * channels, dtype=np.uint8).reshape(6, 5, channels)
    rows = (levels.astype(">u2") * 257).tobytes()
    image = read(images.raw_png(6, 5, 16, colour_type, rows))
    colour = levels[..., :3] if channels >= 3 else levels[..., 0]
    assert max_difference(image, colour) == 0
    assert image.is_grey == (channels == 2)
    assert (image.alpha is None) == (channels == 3)
    if image.alpha is not None:
        assert (image.alpha == levels[..., -1]).all()
    assert "16 bits per channel" in image.notes[0]


def test_transparent_16_bit_grey_is_found_in_its_own_depth() -> None:
    samples = np.array([[0x1234, 0x1235, 0x1334, 0]], np.uint16)
    png = images.insert_png_chunk(images.grey16_png(samples), b"tRNS", b"\x12\x34")
    assert read_alpha(read(png)).tolist() == [[0, 255, 255, 255]]


@pytest.mark.parametrize("orientation", [1, 6])
def test_transparent_16_bit_colour_matches_exactly(orientation: int) -> None:
    key = (1000, 2000, 3000)
    samples = np.array([[key, (1001, 2001, 3001), (1000, 2000, 3001)], [(1000, 0, 3000), key, (65535, 0, 9)]], ">u2")
    chunks = [
        images.png_chunk(b"tRNS", struct.pack(">3H", *key)),
        images.png_chunk(b"eXIf", images.exif_with_orientation(orientation)),
    ]
    stored = images.store_for_orientation(samples, orientation)
    height, width = stored.shape[:2]
    image = read(images.raw_png(height, width, 16, 2, stored.tobytes(), chunks))
    assert read_alpha(image).tolist() == [[0, 255, 255], [255, 0, 255]]
    assert max_difference(image, (samples >> 8).astype(np.uint8)) == 0


def test_one_transparent_grey_or_colour_becomes_alpha() -> None:
    for opaque, key in ((GREY, (int(GREY[3, 4]),)), (PHOTO, tuple(int(level) for level in PHOTO[3, 4]))):
        image = read(images.png_with_transparent_colour(opaque, key))
        matches = opaque == key[0] if opaque.ndim == 2 else (opaque == key).all(axis=2)
        assert ((read_alpha(image) == 0) == matches).all()
        assert max_difference(image, opaque) == 0


def test_palette_becomes_rgb_with_a_note() -> None:
    few = PHOTO & np.array((0xE0, 0, 0), np.uint8)
    image = read(images.palette_png(few, 8))
    assert max_difference(image, few) == 0
    assert (image.alpha, image.is_grey) == (None, False)
    assert image.notes == ("The image has a palette: it was converted to RGB.",)


def test_palette_of_greys_is_greyscale() -> None:
    few = np.repeat((GREY & np.uint8(0xE0))[..., np.newaxis], 3, axis=2)
    image = read(images.palette_png(few, 8))
    assert image.is_grey
    assert max_difference(image, few) == 0


def test_transparency_of_a_palette_becomes_alpha() -> None:
    image = read(images.palette_png_with_transparency(PHOTO))
    assert set(np.unique(read_alpha(image))) == {0, 128, 255}


def test_index_beyond_the_palette_does_not_crash() -> None:
    palette = images.png_chunk(b"PLTE", bytes((255, 0, 0)))
    image = read(images.raw_png(1, 2, 8, 3, bytes((0, 200)), [palette]))
    assert image.pixels[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("animated", [images.animated_webp, images.animated_png])
def test_first_frame_of_an_animation_is_used_with_a_note(animated: Callable[[list[Pixels]], bytes]) -> None:
    image = read(animated([PHOTO, ~PHOTO, PHOTO]))
    assert (image.pixels == PHOTO).all()
    assert image.notes == ("The image is animated: only the first of its 3 frames was used.",)


@pytest.mark.parametrize("build", [images.cmyk_jpeg, images.ycck_jpeg])
def test_cmyk_and_ycck_become_rgb_with_a_note(build: Callable[[Pixels], bytes]) -> None:
    patches = np.zeros((32, 64, 3), np.uint8)
    patches[:, :16], patches[:, 16:32], patches[:, 32:48] = (230, 20, 20), (20, 200, 40), (255, 255, 255)
    image = read(build(patches))
    printed = {8: (215, 63, 49), 24: (4, 138, 92), 40: (255, 255, 255), 56: (59, 59, 57)}
    for column, colour in printed.items():
        assert np.abs(image.pixels[16, column].astype(int) - colour).max() <= 12, image.pixels[16, column]
    assert "CMYK" in image.notes[0]


@pytest.mark.parametrize(
    "failure",
    [
        *(
            kind("x")
            for kind in (OSError, SyntaxError, ValueError, struct.error, zlib.error, OverflowError, IndexError)
        ),
        *(kind("x") for kind in (KeyError, TypeError, RecursionError, UserWarning)),
        EOFError(),
        MemoryError(),
        UnidentifiedImageError("cannot identify <_io.BytesIO object at 0x7f>"),
    ],
)
def test_decoder_errors_become_unreadable_image(failure: Exception) -> None:
    upload = probe(images.encode_png(PHOTO), LIMITS)
    with pytest.raises(UnreadableImageError, match=r"PNG|40 x 24 pixels") as caught, _decoder_errors(upload):
        raise failure
    assert "0x7f" not in str(caught.value)
    with pytest.raises(TooManyPixelsError, match="40 x 24"), _decoder_errors(upload):
        raise PilImage.DecompressionBombError("too many")


def test_pillow_is_strict_and_opens_three_formats() -> None:
    checks = """
import warnings
from PIL import Image, ImageFile, PngImagePlugin
import preprocessing.codec
from testing import images
limits = preprocessing.codec.UploadLimits(max_bytes=10**6, max_pixels=10**6, max_side=10**4)
for build in (images.encode_png, images.encode_jpeg, images.encode_webp):
    preprocessing.codec.decode(preprocessing.codec.probe(build(images.draw_photo(8, 8)), limits))
assert ImageFile.LOAD_TRUNCATED_IMAGES is False
assert PngImagePlugin.MAX_TEXT_CHUNK == PngImagePlugin.MAX_TEXT_MEMORY == 65_536
assert preprocessing.codec.MAX_DECODED_PIXELS == Image.MAX_IMAGE_PIXELS
try:
    warnings.warn("bomb", Image.DecompressionBombWarning)
except Image.DecompressionBombWarning:
    print("a bomb is an error", "TIFF" in Image.OPEN)
"""
    said = subprocess.run([sys.executable, "-c", checks], capture_output=True, text=True, check=True)
    assert said.stdout == "a bomb is an error False\n"
