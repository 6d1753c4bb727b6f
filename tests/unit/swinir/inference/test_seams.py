"""Tiles leave no seam: every bundled variant gives the pixels of the image run whole, within 1 level and 80 dB."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from preprocessing.tiling import choose_grid, split, stitch
from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.zoo import DEFAULT_VARIANT, VARIANTS, Variant
from testing.data import SET5, max_difference, read_pixels
from testing.images import draw_photo
from training.degradations import add_noise, jpeg
from training.metrics import psnr

pytestmark = pytest.mark.slow

MIN_DB = 80.0
# Maximum tile sides that the test adds to the variant's own: tiles this small have no more halo than they need.
SMALL_TILE_PX = 104
BUNDLED = [row for row in VARIANTS.values() if row.is_bundled]


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine(device="cpu")


def damage(pixels: Any, row: Variant) -> Any:
    """Return the image with the damage that the variant removes: its network then has most to do."""
    rng = np.random.default_rng(0)
    if row.task.endswith("denoise"):
        return add_noise(pixels, row.strength or 0, rng)
    if row.task.endswith("jpeg"):
        return jpeg(pixels, row.strength or 0)
    return jpeg(add_noise(pixels, 5, rng), 70) if row.task == "real_sr" else pixels


def tiled_and_whole(engine: TorchEngine, pixels: Any, row: Variant, max_tile_px: int, halo: int) -> tuple[Any, Any]:
    height, width = pixels.shape[:2]
    grid = choose_grid(height, width, window=row.window, halo=halo, margin=row.margin, max_tile_px=max_tile_px)
    assert grid.rows > 1, "this image has one row of tiles"
    assert grid.columns > 1, "this image has one column of tiles"
    tiled = stitch(engine.restore(split(pixels, grid), row.name).tiles, grid, row.scale)
    return tiled, restore_image(engine, pixels, row)


@pytest.mark.parametrize("row", BUNDLED, ids=lambda row: row.name)
def test_tiles_of_the_service_leave_no_seam(engine: TorchEngine, row: Variant) -> None:
    face = read_pixels(SET5 / "HR" / "baby.png")[100:364, 90:370]
    tiled, whole = tiled_and_whole(engine, damage(face, row), row, row.max_tile_px, row.halo)
    assert max_difference(tiled, whole) <= 1
    assert psnr(tiled, whole) >= MIN_DB, f"{psnr(tiled, whole):.1f} dB"


@pytest.mark.parametrize("row", BUNDLED, ids=lambda row: row.name)
def test_small_tiles_leave_no_seam(engine: TorchEngine, row: Variant) -> None:
    drawn = draw_photo(200, 216, seed=7)
    tiled, whole = tiled_and_whole(engine, damage(drawn, row), row, SMALL_TILE_PX, row.halo)
    assert max_difference(tiled, whole) <= 1
    assert psnr(tiled, whole) >= MIN_DB, f"{psnr(tiled, whole):.1f} dB"


def test_halo_of_one_window_leaves_a_seam(engine: TorchEngine) -> None:
    row = VARIANTS[DEFAULT_VARIANT]
    tiled, whole = tiled_and_whole(engine, draw_photo(200, 216, seed=7), row, SMALL_TILE_PX, row.window)
    assert psnr(tiled, whole) < MIN_DB
