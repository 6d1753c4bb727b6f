"""Whole images through the engine as one tile: the pixels that the service returns, but for the halos of its tiles."""

from __future__ import annotations

import numpy as np

from preprocessing.grey import keep_grey
from preprocessing.tiling import split, stitch
from swinir.image_grid import one_tile_grid
from swinir.inference.engine import Engine, Tiles
from swinir.zoo import Variant


def restore_image(engine: Engine, image: Tiles, row: Variant) -> Tiles:
    """Return an image [H, W, 3] restored to [H * scale, W * scale, 3]; raises the errors of `Engine.restore`."""
    grid = one_tile_grid(row, *image.shape[:2])
    restored = stitch(engine.restore(np.ascontiguousarray(split(image, grid)), row.name).tiles, grid, row.scale)
    return keep_grey(restored, image)
