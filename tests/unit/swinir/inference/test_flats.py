"""Flat areas keep their colour in every bundled variant, and the transition to the network's values shows no step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from preprocessing.tiling import split, stitch
from swinir.image_grid import tile_grid
from swinir.inference.flats import REACH_PX, flat_weights, keep_flats
from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.zoo import VARIANTS, Variant
from testing.data import max_difference
from testing.images import draw_photo

BUNDLED = [row for row in VARIANTS.values() if row.is_bundled]
# All corners of the colour cube, greys from near-black to near-white, and tints.
COLOURS = [
    *itertools.product((0, 255), repeat=3),
    *((level, level, level) for level in (8, 64, 96, 128, 160, 192, 250)),
    *((250, 245, 240), (240, 250, 255), (135, 206, 235), (230, 190, 160), (20, 60, 20), (60, 20, 90), (200, 30, 60)),
]


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine(device="cpu")


def fill(height: int, width: int, colour: tuple[int, ...]) -> np.ndarray:  # type: ignore[type-arg]
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)).copy()


def to_tensor(image: np.ndarray) -> torch.Tensor:  # type: ignore[type-arg]
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


@pytest.mark.slow
@pytest.mark.parametrize("row", BUNDLED, ids=lambda row: row.name)
def test_flat_images_change_by_at_most_one_level(engine: TorchEngine, row: Variant) -> None:
    assert len(set(COLOURS)) >= 20
    grid = tile_grid(row, 64, 64)
    tiles = np.concatenate([split(fill(64, 64, colour), grid) for colour in COLOURS])
    for tile, colour in zip(engine.restore(tiles, row.name).tiles, COLOURS, strict=True):
        result = stitch(tile[None], grid, row.scale)
        assert max_difference(result, fill(result.shape[0], result.shape[1], colour)) <= 1, colour


@pytest.mark.slow
@pytest.mark.parametrize("row", BUNDLED, ids=lambda row: row.name)
def test_flat_image_of_several_tiles_changes_by_at_most_one_level(engine: TorchEngine, row: Variant) -> None:
    colour = (0, 0, 255)  # the hardest for compact_real_x4
    image = fill(row.max_tile_px + 8, 40, colour)
    grid = tile_grid(row, *image.shape[:2])
    assert grid.rows > 1
    result = stitch(engine.restore(split(image, grid), row.name).tiles, grid, row.scale)
    assert max_difference(result, fill(result.shape[0], result.shape[1], colour)) <= 1


def half_flat() -> np.ndarray:  # type: ignore[type-arg]
    image = draw_photo(96, 128, seed=3)
    image[:, :80] = (0, 0, 255)
    return image


@pytest.mark.parametrize("reach", [1, 7, 8, 14, 16, 21, 24])
def test_constant_takes_over_between_a_third_of_the_reach_and_the_reach(reach: int) -> None:
    weights = flat_weights(to_tensor(half_flat()), reach)[0, 48]
    distance = 80 - torch.arange(80)  # of each flat pixel from the nearest other colour
    assert (weights[80:] == 0).all()
    assert (weights[:80][distance > reach] == 1).all()
    assert (weights[:80][distance <= reach // 3] == 0).all()
    assert (weights[1:] - weights[:-1]).abs().max() <= 1 / (2 * (reach // 3) + 1) + 1e-6


def test_one_other_pixel_ends_the_flat_area_around_it() -> None:
    image = fill(96, 96, (200, 30, 60))
    image[48, 48, 1] += 1
    weights = flat_weights(to_tensor(image), REACH_PX)[0]
    assert (weights[41:56, 41:56] == 0).all()
    assert weights[48, 48 + REACH_PX + 1] == weights[48 - REACH_PX - 1, 48] == 1


def test_photos_are_left_to_the_network() -> None:
    restored = torch.rand(1, 3, 256, 256)
    before = restored.clone()
    keep_flats(restored, to_tensor(draw_photo(64, 64, seed=1)), halo=24)
    assert (restored == before).all()


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_flat_area_becomes_exactly_the_constant(scale: int, layout: torch.memory_format) -> None:
    images = to_tensor(half_flat())
    shifted = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3) - 9 / 255
    restored = shifted.clone(memory_format=layout)
    keep_flats(restored, images, halo=24)
    levels = (restored * 255).round()[0, :, 48 * scale]
    assert (levels[:, : 55 * scale] == torch.tensor([0.0, 0.0, 255.0])[:, None]).all()
    assert (levels[:, 73 * scale :] == (shifted * 255).round()[0, :, 48 * scale, 73 * scale :]).all()
    assert (levels[:, 1 : 80 * scale] - levels[:, : 80 * scale - 1]).abs().max() <= 1, "a step shows"


def test_tiles_and_the_whole_image_have_one_mask() -> None:
    row = VARIANTS["compact_color_jpeg_20"]  # the narrowest halo
    image = draw_photo(300, 520, seed=5)
    image[40:260, 60:420] = (255, 255, 0)
    image[150, 240] = (0, 0, 0)
    grid = tile_grid(row, *image.shape[:2])
    reach = min(row.halo, REACH_PX)
    masks = [flat_weights(to_tensor(tile), reach)[0, ..., None].numpy() for tile in split(image, grid)]
    assert len(masks) > 1
    whole = flat_weights(to_tensor(image), reach)[0, ..., None].numpy()
    inner = (slice(reach, -reach), slice(reach, -reach))  # the margin reflects what the bare image lacks
    assert np.abs(stitch(np.stack(masks), grid, 1) - whole)[inner].max() < 1e-6
    assert 0 < whole.mean() < 1


@pytest.mark.slow
def test_grey_image_stays_grey_in_every_variant(engine: TorchEngine) -> None:
    grey = draw_photo(48, 56, seed=2)[..., 1:2].repeat(3, axis=2)
    for row in BUNDLED:
        result = restore_image(engine, grey, row)
        assert (result == result[..., :1]).all(), row.name
