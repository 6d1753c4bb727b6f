"""Sharpness: 2 for edges of one pixel, less for softer ones, and unknown without edges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PilImage
from PIL import ImageFilter

from preprocessing.content import ImageKind, classify
from preprocessing.image import Image, Pixels
from preprocessing.sharpness import EdgeSharpness
from testing.content_images import add_noise, pass_through_jpeg
from testing.images import draw_photo

SHARP = draw_photo(160, 160)
RESAMPLING = PilImage.Resampling


def measure(levels: Pixels) -> float | None:
    sharpness = EdgeSharpness()
    sharpness.add(levels.astype(np.int32))
    return sharpness.level()


def draw_stripes() -> Pixels:
    """Draw stripes with edges of one pixel, [256, 256]."""
    return np.tile(np.where(np.arange(256) % 32 < 16, 64, 192), (256, 1)).astype(np.uint8)


def enlarge(pixels: Pixels, factor: float, method: PilImage.Resampling) -> npt.NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    sides = round(width * factor), round(height * factor)
    return np.asarray(PilImage.fromarray(pixels).resize(sides, method), np.uint8)


def blur(pixels: Pixels, radius: float) -> Pixels:
    return np.array(PilImage.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def test_sharpness_falls_with_the_blur_of_edges() -> None:
    found = [measure(draw_stripes())] + [measure(blur(draw_stripes(), radius)) for radius in (0.8, 1.2, 2)]

    assert None not in found
    assert found[0] == 2.0
    assert found == sorted(found, key=lambda level: -(level or 0))
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    "levels", [np.full((64, 64), 128, np.uint8), add_noise(np.full((64, 64, 1), 128, np.uint8), 2)[..., 0]]
)
def test_sharpness_without_edges_is_unknown(levels: Pixels) -> None:
    assert measure(levels) is None


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("method", [RESAMPLING.BILINEAR, RESAMPLING.BICUBIC, RESAMPLING.LANCZOS])
@pytest.mark.parametrize("quality", [None, 92])
def test_enlarged_photo_is_soft(factor: int, method: PilImage.Resampling, quality: int | None) -> None:
    enlarged = enlarge(SHARP, factor, method)

    content = classify(Image(pass_through_jpeg(enlarged, quality) if quality else enlarged))

    assert content.kind == ImageKind.WORN_PHOTO
    if quality is None:  # a JPEG may also show its blocks
        assert (content.description, content.evidence) == ("a soft photo", "it has no sharp edge")


def test_photo_out_of_focus_is_soft() -> None:
    assert classify(Image(blur(SHARP, 1.2))).description == "a soft photo"


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_photo_with_a_sharp_subject_is_not_soft(share: float) -> None:
    photo = draw_photo(512, 512)
    subject = round(512 * share**0.5)
    soft = blur(photo, 4)
    soft[:subject, -subject:] = photo[:subject, -subject:]

    assert classify(Image(soft)).kind == ImageKind.CLEAN_PHOTO
