"""Smooth corners and neutral areas, through every bundled variant: no colour appears that the input does not have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from preprocessing.image import Pixels
from swinir.inference.neutrals import keep_corners, keep_neutrals
from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.zoo import VARIANTS, Variant
from testing.images import draw_photo

BUNDLED = [variant for variant in VARIANTS.values() if variant.is_bundled]
MAGENTA = (255, 0, 255)


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine()


def flat(side: int = 96) -> Pixels:
    return np.full((side, side, 3), MAGENTA, np.uint8)


def with_object() -> Pixels:
    """Draw a square so near to the corner that the area around it is not flat as far as a network sees."""
    image = flat()
    image[12:20, 12:20] = (0, 90, 20)
    return image


def gradient() -> Pixels:
    image = flat()
    image[..., 1] = np.linspace(0, 6, 96).astype(np.uint8)
    return image


def corners(image: Pixels, side: int) -> Pixels:
    """Return the four corners [4, side, side, 3]."""
    ends = (slice(0, side), slice(-side, None))
    return np.stack([image[rows, columns] for rows in ends for columns in ends])


@pytest.mark.parametrize("variant", BUNDLED, ids=lambda variant: variant.name)
@pytest.mark.parametrize(
    "image", [flat(), flat(99), with_object(), gradient()], ids=["flat", "99", "object", "gradient"]
)
def test_smooth_corners_keep_their_colour(engine: TorchEngine, variant: Variant, image: Pixels) -> None:
    scale = variant.scale
    restored, given = restore_image(engine, image, variant), image.repeat(scale, axis=0).repeat(scale, axis=1)

    difference = np.abs(corners(restored, 4 * scale).astype(int) - corners(given, 4 * scale))
    assert difference.max() <= 1  # without the rule 13 to 41 in the variants that upscale
    if len(np.unique(image)) == 2:
        assert np.abs(restored.astype(int) - given).max() <= 1


@pytest.mark.parametrize("variant", BUNDLED, ids=lambda variant: variant.name)
def test_neutral_text_next_to_colour_stays_neutral(engine: TorchEngine, variant: Variant) -> None:
    stripes = np.where((np.arange(64) % 4 < 2)[:, np.newaxis] ^ (np.arange(64) % 8 < 4), 255, 20).astype(np.uint8)
    image = stripes[..., np.newaxis].repeat(3, axis=2)
    image[:, 48:] = draw_photo(64, 16)

    restored = restore_image(engine, image, variant).astype(int)[:, : (48 - 6) * variant.scale]

    assert (restored.max(axis=2) - restored.min(axis=2)).max() == 0


def tensors(image: Pixels, scale: int = 2) -> tuple[Tensor, Tensor]:
    """Return a result of noise, and the input."""
    height, width, _ = image.shape
    noise = torch.rand(1, 3, height * scale, width * scale, generator=torch.Generator().manual_seed(0))
    return noise, torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def test_colours_and_textured_corners_are_left_to_the_network() -> None:
    photo = draw_photo(64, 64)
    photo[..., 0] = np.maximum(photo[..., 0], photo[..., 1] // 2 + 1)  # no pixel is neutral
    photo[..., 1] = photo[..., 0] - 1
    photo[::3] = 255 - photo[::3]
    restored, images = tensors(photo)
    before = restored.clone()

    keep_neutrals(restored, images)
    keep_corners(restored, images)

    assert torch.equal(restored, before)


def test_neutral_areas_keep_the_luminance_of_the_network() -> None:
    restored, images = tensors(np.full((32, 32, 3), 7, np.uint8))
    luminance = (restored * torch.tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)

    keep_neutrals(restored, images)

    assert torch.allclose(restored, luminance.expand(1, 3, 64, 64), atol=1e-6)


def test_rules_see_no_further_than_a_few_pixels() -> None:
    image = np.full((64, 64, 3), 7, np.uint8)
    image[:, 32:] = draw_photo(64, 32)
    image[:, 32:, 0] ^= 1
    results = []
    for right in (False, True):
        restored, images = tensors(image)
        if right:  # a change further away than 6 pixels
            images[..., 39:] = 0.5
        keep_neutrals(restored, images)
        results.append(restored[..., : 32 * 2])
    assert torch.equal(*results)


@pytest.mark.parametrize("side", [1, 15])
def test_small_tiles_have_no_corners(side: int) -> None:
    restored, images = tensors(np.full((side, side, 3), 9, np.uint8))
    before = restored.clone()

    keep_corners(restored, images)

    assert torch.equal(restored, before)
