"""Tiled and whole upscales agree with the shipped weights on a real Triton: no seam is visible or measurable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from swinir.image_grid import tile_grid
from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.zoo import DEFAULT_VARIANT, VARIANTS
from testing.data import SET5, max_difference, read_pixels
from testing.images import draw_photo
from testing.triton import TritonServer
from testing.triton_clients import upscale
from training.metrics import psnr

MIN_DB = 80.0


def gradient(height: int, width: int) -> Any:
    """Return a slow diagonal ramp, which shows seams best."""
    ramp = np.linspace(60, 190, height)[:, None] + np.linspace(-40, 40, width)[None, :]
    return np.repeat(ramp.round().astype(np.uint8)[..., None], 3, axis=2)


PICTURES: dict[str, Callable[[], Any]] = {
    "a photo of a face, 512x512": lambda: read_pixels(SET5 / "HR" / "baby.png"),
    "a photo of a woman, 344x228": lambda: read_pixels(SET5 / "HR" / "woman.png"),
    "edges and texture, 300x523": lambda: draw_photo(300, 523, seed=7),
    "a smooth gradient, 290x610": lambda: gradient(290, 610),
    "a flat field, 270x530": lambda: np.full((270, 530, 3), 137, np.uint8),
}


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine()


@pytest.mark.parametrize("name", PICTURES)
def test_tiles_leave_no_seam(triton_server: TritonServer, engine: TorchEngine, name: str) -> None:
    pixels, row = PICTURES[name](), VARIANTS[DEFAULT_VARIANT]
    grid = tile_grid(row, *pixels.shape[:2])
    assert grid.rows * grid.columns > 1, "this image has only one tile"

    tiled = upscale(triton_server, pixels)

    whole = restore_image(engine, pixels, row)
    assert max_difference(tiled, whole) <= 1
    assert psnr(tiled, whole) >= MIN_DB, f"{psnr(tiled, whole):.1f} dB"
