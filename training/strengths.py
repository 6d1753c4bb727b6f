"""Measure a 1x variant away from its nominal strength: ``python -m training.strengths NAME --data DIR``.

Prints PSNR before and after for clean, weakly and strongly damaged images, and how far flat colours move. A variant
must leave clean images and flat colours alone. `--weights FILE` measures other weights than the bundled ones, `--half`
the images at half their size: two of Set5 were JPEGs once, and what a JPEG variant takes from them counts as an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from swinir.network.swinir import SwinIR
from swinir.weights.find import find_weights
from swinir.weights.load import load_network
from swinir.zoo import VARIANTS, Variant
from training.degradations import Pixels, add_noise, jpeg, resize, to_grey
from training.drawings import EXTREME_COLOURS
from training.evaluate import restore
from training.measure import image_paths, read
from training.metrics import psnr
from training.recipes import RECIPES

SIGMAS = (0, 5, 15, 25, 50)
QUALITIES = (100, 95, 80, 40, 20, 10)
FLAT_SIDE = 48
NAMES = [name for name, recipe in RECIPES.items() if recipe.scale == 1]


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Holds bench/.")
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="Default: the bundled ones.")
@click.option("--half", is_flag=True, help="Shrink the images to half, which removes the blocks some came with.")
@click.option("--threads", default=1, show_default=True)
def measure_strengths(name: str, data: Path, weights: Path | None, threads: int, *, half: bool) -> None:
    """Print the table of variant NAME."""
    torch.set_num_threads(threads)
    row = VARIANTS[name]
    network = load_network(row, weights or find_weights(row, None))
    print("| strength | before, dB | after, dB |\n|---|---|---|")
    images = [halve(read(path)) if half else read(path) for path in image_paths(row, data / "bench")]
    for strength, before, after in strengths(network, row, images):
        print(f"| {strength} | {before:.2f} | {after:.2f} |", flush=True)
    print(f"Largest change of a flat colour: {flat_change(network, row)} levels.")


def halve(image: Pixels) -> Pixels:
    """Shrink to half: [H, W, 3] -> [h, w, 3], to sides that 8 does not divide, so that no old grid fits."""
    height, width = (side // 2 // 8 * 8 + 5 for side in image.shape[:2])
    return resize(image, height, width)


def strengths(network: SwinIR, row: Variant, images: list[Pixels]) -> list[tuple[int, float, float]]:
    """Return (strength, PSNR of the input, PSNR of the result), means over the images; inf where nothing changed."""
    noisy = row.task.endswith("denoise")
    table = []
    for strength in SIGMAS if noisy else QUALITIES:
        rng = np.random.default_rng(0)
        before, after = [], []
        for image in images:
            target = to_grey(image) if row.channels == 1 else image
            given = add_noise(target, strength, rng) if noisy else jpeg(target, strength)
            before.append(psnr(given, target))
            after.append(psnr(restore(network, given, row.margin), target))
        table.append((strength, float(np.mean(before)), float(np.mean(after))))
    return table


def flat_change(network: SwinIR, row: Variant) -> int:
    """The largest change, in levels, of flat colours: black, white, primaries and the greys between."""
    colours: list[Any] = [*EXTREME_COLOURS, *((level, level, level) for level in range(16, 256, 16))]
    changes = []
    for colour in colours:
        flat = np.empty((FLAT_SIDE, FLAT_SIDE, 3), np.uint8)
        flat[:] = colour
        given = to_grey(flat) if row.channels == 1 else flat
        changes.append(int(np.abs(restore(network, given, row.margin).astype(int) - given.astype(int)).max()))
    return max(changes)


if __name__ == "__main__":
    measure_strengths()
