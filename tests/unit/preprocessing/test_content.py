"""The kind of an image follows from its pixels, in bounded work."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from preprocessing.codec import UploadLimits, decode, probe
from preprocessing.content import MAX_TILES, TILE_PX, ImageKind, choose_tiles, classify
from preprocessing.formats.jpeg import read_quality
from preprocessing.image import Image, Pixels
from testing.content_images import (
    add_noise,
    draw_clean_photo,
    draw_comic,
    draw_pixel_art,
    draw_screenshot,
    pass_through_jpeg,
    repeat_pixels,
)
from testing.images import draw_photo, encode_jpeg, encode_png

LIMITS = UploadLimits(max_bytes=10_000_000, max_pixels=10_000_000, max_side=9_000)
PHOTO = draw_clean_photo()
CLEAN, WORN, DRAWING, ART = ImageKind.CLEAN_PHOTO, ImageKind.WORN_PHOTO, ImageKind.DRAWING, ImageKind.PIXEL_ART


def on_white(pixels: Pixels) -> Pixels:
    return np.pad(pixels, ((96, 96), (96, 96), (0, 0)), constant_values=255)


def draw_antialiased_ring() -> Pixels:
    y, x = np.mgrid[0:64, 0:64]
    level = np.rint(15 * np.clip(1.2 - np.abs(np.hypot(y - 31.2, x - 30.7) - 22), 0, 1))
    return (40 + 12 * level)[..., np.newaxis].repeat(3, axis=2).astype(np.uint8)


def draw_rectangles() -> Pixels:
    pixels = np.full((90, 100, 3), 250, np.uint8)
    for number, (top, left) in enumerate([(7, 5), (20, 18), (33, 41), (49, 60), (61, 13)]):
        pixels[top : top + 17, left : left + 23] = 40 * number, 90, 200 - 30 * number
    return pixels


KINDS: dict[str, tuple[Pixels, ImageKind]] = {
    "photo": (PHOTO, CLEAN),
    "photo of other content": (draw_photo(150, 200), CLEAN),
    "grey photo": (PHOTO[..., :1].repeat(3, axis=2), CLEAN),
    "photo with weak noise": (add_noise(PHOTO, 2), CLEAN),
    "photo as JPEG of quality 95": (pass_through_jpeg(PHOTO, 95), CLEAN),
    "photo on white": (on_white(PHOTO), CLEAN),
    "photo as JPEG of quality 35": (pass_through_jpeg(PHOTO, 35), WORN),
    "grey photo as JPEG": (pass_through_jpeg(PHOTO[..., :1].repeat(3, axis=2), 35), WORN),
    "cropped JPEG": (pass_through_jpeg(PHOTO, 35)[3:, 5:], WORN),
    "bad JPEG saved again as a good one": (pass_through_jpeg(pass_through_jpeg(PHOTO, 30), 95), WORN),
    "bad JPEG on white": (on_white(pass_through_jpeg(PHOTO, 30)), WORN),
    "JPEG of quality 75": (pass_through_jpeg(PHOTO, 75), WORN),
    "JPEG of quality 60 saved again on its grid": (pass_through_jpeg(pass_through_jpeg(PHOTO, 60), 92), WORN),
    "clean comic": (draw_comic(), CLEAN),
    "clean comic as a good JPEG": (pass_through_jpeg(draw_comic(), 92), CLEAN),
    "small comic with the ringing of a JPEG": (pass_through_jpeg(draw_comic(), 75), WORN),
    "... cropped": (pass_through_jpeg(draw_comic(), 75)[3:, 6:], WORN),
    "... grey": (pass_through_jpeg(draw_comic()[..., :1].repeat(3, axis=2), 70), WORN),
    "photo with strong noise": (add_noise(PHOTO, 10), WORN),
    "screenshot": (draw_screenshot(), DRAWING),
    "screenshot as JPEG": (pass_through_jpeg(draw_screenshot(), 85), DRAWING),
    "screenshot next to a photo": (np.concatenate([draw_screenshot(200, 240), PHOTO], axis=1), DRAWING),
    "icon with antialiased edges": (draw_antialiased_ring(), DRAWING),
    "flat rectangles without details": (draw_rectangles(), DRAWING),
    "one colour": (np.full((50, 60, 3), 77, np.uint8), DRAWING),
    "one pixel": (np.full((1, 1, 3), 200, np.uint8), DRAWING),
    "pixel art": (draw_pixel_art(), ART),
    "pixel art, enlarged 2 times": (repeat_pixels(draw_pixel_art(), 2), ART),
    "pixel art, enlarged 5 times and cropped": (repeat_pixels(draw_pixel_art(1), 5)[2:, 3:], ART),
    "large enlarged pixel art": (repeat_pixels(draw_pixel_art(2), 14), ART),
}


@pytest.mark.parametrize("name", KINDS)
def test_kind_of_image(name: str) -> None:
    pixels, kind = KINDS[name]
    content = classify(Image(pixels))
    assert content.kind == kind, content
    assert content.description.startswith(("a ", "pixel art"))
    assert content.evidence


@pytest.mark.parametrize("quality", [20, 80, 81, 92])
def test_quality_of_the_file_counts_where_texture_hides_the_blocks(quality: int) -> None:
    texture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    upload = probe(encode_jpeg(texture, quality=quality), LIMITS)
    image = decode(upload)
    assert read_quality(upload.container) == quality
    content = classify(image, read_quality(upload.container))
    assert (content.evidence == f"JPEG quality {quality}") == (quality <= 80)


@pytest.mark.parametrize(("quantiser", "kind"), [(None, CLEAN), (41.9, CLEAN), (42.0, WORN), (52.3, WORN)])
def test_quantiser_of_a_webp_counts_although_its_pixels_show_no_damage(
    quantiser: float | None, kind: ImageKind
) -> None:
    content = classify(Image(PHOTO), None, quantiser)

    assert content.kind == kind
    assert (content.evidence == "WebP with a quantiser of 52 of 127") == (quantiser == 52.3)


def test_blocks_of_a_good_webp_do_not_count() -> None:
    blocks = (np.add.outer(np.arange(12), np.arange(12)) % 2 * 4).repeat(16, axis=0).repeat(16, axis=1)
    image = Image((PHOTO[:192, :192] + blocks[..., np.newaxis]).clip(0, 255).astype(np.uint8))

    assert classify(image).evidence == "it has the blocks of strong compression"  # so that the test can fail
    assert classify(image, None, 12.0).kind == CLEAN


def test_drawing_stays_a_drawing_as_a_bad_webp() -> None:
    assert classify(Image(draw_screenshot()), None, 90.0).kind == DRAWING


def test_other_formats_have_no_quality() -> None:
    assert read_quality(probe(encode_png(PHOTO), LIMITS).container) is None


def test_colour_under_transparency_does_not_count() -> None:
    art = draw_pixel_art()
    hidden = (art == art[0, 0]).all(axis=2)
    alpha = np.where(hidden, 0, 255).astype(np.uint8)
    noisy = np.where(hidden[..., np.newaxis], add_noise(art, 60), art).astype(np.uint8)
    assert classify(Image(noisy, alpha)).kind == ART
    assert classify(Image(noisy)).kind != ART  # so that the test can fail


def test_antialiasing_in_the_alpha_channel_is_no_pixel_art() -> None:
    y, x = np.mgrid[0:90, 0:90]
    alpha = np.clip(128 + 100 * (30 - np.hypot(y - 44.3, x - 45.2)), 0, 255).astype(np.uint8)
    assert classify(Image(np.full((90, 90, 3), (40, 90, 200), np.uint8), alpha)).kind == DRAWING


def test_pixels_of_a_photo_that_was_enlarged_by_repeating_are_no_pixel_art() -> None:
    assert classify(Image(repeat_pixels(PHOTO, 3))).kind != ART


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [(1, 1, 1), (128, 129, 2), (512, 512, 16), (8_192, 1, 16), (1, 8_192, 16), (4_000, 3_000, 16), (700, 700, 16)],
)
def test_tiles_are_bounded_and_different(height: int, width: int, count: int) -> None:
    tiles = choose_tiles(height, width)
    assert len(set(tiles)) == len(tiles) == count <= MAX_TILES
    assert all(0 <= top < height and 0 <= left < width for top, left in tiles)
    assert all(top % TILE_PX == left % TILE_PX == 0 for top, left in tiles)


def test_tiles_of_a_large_image_lie_in_all_of_its_quarters() -> None:
    quarters = {(top >= 2_048, left >= 2_048) for top, left in choose_tiles(4_096, 4_096)}
    assert len(quarters) == 4


def test_memory_follows_the_tile_and_not_the_image() -> None:
    image = Image(np.random.default_rng(0).integers(0, 256, (2_000, 2_000, 3), np.uint8))
    tracemalloc.start()
    classify(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000  # 12 MB of pixels; a tile has 49 kB
