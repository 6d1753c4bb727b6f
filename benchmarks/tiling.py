"""Measures how halo and alignment of tiles affect the result, in dB, in levels and in pixels that are computed twice.

    python -m benchmarks.tiling PHOTO_DIR [--variant compact_x4]

Photos, a smooth gradient and a flat field are upscaled by the shipped engine: whole (one tile), and in tiles of at most
96 px with several halos. Then inner tiles are moved half a window off the grid, as a tiler would place them that
ignores windows. Writes benchmarks/results/tiling.json and the table of docs/explanation/tiling.md. Measures no times.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from benchmarks.machine import describe_machine
from benchmarks.report import write_seams
from preprocessing.tiling import Grid, choose_grid, pad_to_window, split, stitch
from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.zoo import DEFAULT_VARIANT, find_variant

RESULTS = Path(__file__).parent / "results" / "tiling.json"
HALOS = (0, 8, 16, 24, 32)
MAX_TILE_PX = 96
MIN_SIDE_PX = 2 * MAX_TILE_PX + 8
"""Minimum side of a photo. Smaller ones would have no inner tile."""
MAX_SIDE_PX = 400
"""Photos are cropped to this side, so that the whole image fits into one pass."""
SYNTHETIC_SIDE_PX = 384

Pixels = npt.NDArray[np.uint8 | np.uint16]


@dataclass(frozen=True)
class Seam:
    """Difference between a tiled result and the image upscaled whole."""

    decibels: float
    """PSNR against the image upscaled whole; infinite if they are equal."""
    levels: int
    """Maximum difference of a sample."""
    wrong_samples: float
    """Share of samples that differ."""


def compare_images(tiled: Pixels, whole: Pixels) -> Seam:
    """Return the difference between `tiled` and `whole`."""
    difference = np.abs(tiled.astype(np.int16) - whole)
    error = float(np.mean(difference.astype(np.float64) ** 2))
    decibels = 10 * math.log10(255**2 / error) if error else math.inf
    return Seam(decibels, int(difference.max()), float(np.mean(difference > 0)))


def upscale_whole(engine: TorchEngine, image: Pixels, variant: str) -> Pixels:
    """Return the image upscaled as one tile."""
    return restore_image(engine, image, find_variant(variant))


def upscale_tiled(engine: TorchEngine, image: Pixels, variant: str, grid: Grid) -> Pixels:
    """Return the image upscaled in the tiles of the grid."""
    return stitch(engine.restore(split(image, grid), variant).tiles, grid, find_variant(variant).scale)


def upscale_off_grid(engine: TorchEngine, image: Pixels, variant: str, grid: Grid) -> Pixels:
    """Return the image upscaled in tiles that are a window larger; inner tiles and their cores move by half a window.

    So every tile has at least the halo and all pixels that it has on the grid.
    """
    scale = find_variant(variant).scale
    padded = pad_to_window(image, grid.window, grid.margin)
    tops, lefts = (_move(offsets, grid.window) for offsets in (grid.tops, grid.lefts))
    tile_height, tile_width = grid.tile_height + grid.window, grid.tile_width + grid.window
    corners = [(top + grid.margin, left + grid.margin) for top in tops for left in lefts]
    cut = [padded[top : top + tile_height, left : left + tile_width] for top, left in corners]
    tiles = engine.restore(np.stack(cut), variant).tiles
    rows = _edges(tops, tile_height, grid.height)
    columns = _edges(lefts, tile_width, grid.width)
    upscaled = np.empty((grid.height * scale, grid.width * scale, 3), np.uint8)
    for i, (top, (first, last)) in enumerate(zip(tops, pairwise(rows), strict=True)):
        for j, (left, (start, stop)) in enumerate(zip(lefts, pairwise(columns), strict=True)):
            tile = tiles[i * len(lefts) + j]
            core = tile[scale * (first - top) : scale * (last - top), scale * (start - left) : scale * (stop - left)]
            upscaled[scale * first : scale * last, scale * start : scale * stop] = core
    return upscaled


def measure_image(engine: TorchEngine, image: Pixels, variant: str, halos: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return one row per halo on the window grid and one off it; halos narrower than the margin are left out."""
    height, width = image.shape[:2]
    row = find_variant(variant)
    whole = upscale_whole(engine, image, variant)
    rows: list[dict[str, Any]] = []
    for halo in halos:
        if halo < row.margin:
            continue
        grid = choose_grid(height, width, window=row.window, halo=halo, margin=row.margin, max_tile_px=MAX_TILE_PX)
        for is_aligned, upscale in ((True, upscale_tiled), (False, upscale_off_grid)):
            seam = compare_images(upscale(engine, image, variant, grid), whole)
            rows.append(
                {
                    "halo": halo,
                    "aligned": is_aligned,
                    "decibels": None if math.isinf(seam.decibels) else round(seam.decibels, 2),
                    "levels": seam.levels,
                    "wrong_samples": round(seam.wrong_samples, 7),
                    "tiles": grid.rows * grid.columns,
                    "computed_ratio": round(grid.computed_ratio, 3),
                }
            )
    return rows


def read_photos(folder: Path) -> dict[str, Pixels]:
    """Return the photos of a folder that are large enough, as RGB, cropped at the center to MAX_SIDE_PX."""
    photos = {}
    for path in sorted(folder.iterdir()):
        with PilImage.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        if min(pixels.shape[:2]) < MIN_SIDE_PX:
            continue
        top, left = (max(0, side - MAX_SIDE_PX) // 2 for side in pixels.shape[:2])
        photos[path.stem] = np.ascontiguousarray(pixels[top : top + MAX_SIDE_PX, left : left + MAX_SIDE_PX])
    return photos


def make_synthetic(side: int) -> dict[str, Pixels]:
    """Return synthetic images on which seams are most visible."""
    down, across = np.mgrid[0:side, 0:side] / (side - 1)
    gradient = np.stack([across, down, (across + down) / 2], axis=2) * 200 + 20
    return {"gradient": np.round(gradient).astype(np.uint8), "flat": np.full((side, side, 3), 128, np.uint8)}


def measure(images: Mapping[str, Pixels], variant: str, halos: tuple[int, ...] = HALOS) -> dict[str, Any]:
    """Return what goes into the results file."""
    engine = TorchEngine(device="cpu")
    rows: dict[str, Any] = {}
    for name, image in images.items():
        rows[name] = {"size": [image.shape[1], image.shape[0]], "rows": measure_image(engine, image, variant, halos)}
        print(f"{name}: {rows[name]['rows']}", flush=True)
    return {"machine": describe_machine(), "variant": variant, "max_tile_px": MAX_TILE_PX, "images": rows}


def main() -> None:
    """Measure, store the results and write the table."""
    parser = argparse.ArgumentParser(description="Measure how seams depend on halo and alignment.")
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("--variant", default=DEFAULT_VARIANT)
    arguments = parser.parse_args()
    images = {**read_photos(arguments.photos), **make_synthetic(SYNTHETIC_SIDE_PX)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(measure(images, arguments.variant), indent=1) + "\n")
    write_seams()


def _move(offsets: tuple[int, ...], window: int) -> tuple[int, ...]:
    return (offsets[0], *(offset - window // 2 for offset in offsets[1:-1]), offsets[-1] - window)


def _edges(offsets: tuple[int, ...], tile: int, side: int) -> tuple[int, ...]:
    return (0, *((before + tile + after) // 2 for before, after in pairwise(offsets)), side)


if __name__ == "__main__":
    main()
