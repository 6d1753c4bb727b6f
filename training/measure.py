"""Measure the bundled weights on images they never saw: ``python -m training.measure --data DIR [NAME...]``.

Through the engine that serves, uint8 in and uint8 out; prints the table of docs/reference/variants.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from swinir.inference.engine import Engine
from swinir.weights.load import find_weights
from swinir.zoo import VARIANTS, Variant
from training.degradations import add_noise, jpeg, resize
from training.metrics import luminance_psnr, psnr

# The benchmarks of grey variants; the others are measured on Set5.
GREY_SETS = {"gray_denoise": "Set12", "gray_jpeg": "classic5"}

Pair = tuple[Any, Any]
"""(input of the variant, target), uint8 [H, W, 3]."""


@click.command()
@click.argument("names", nargs=-1)
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Holds bench/.")
@click.option("--threads", default=2, show_default=True)
def measure(names: tuple[str, ...], data: Path, threads: int) -> None:
    """Print a line of the table for each bundled variant, or for those NAMED."""
    engine = Engine(device="cpu", threads=threads)
    print("| variant | file | measured on | before, dB | after, dB | gain, dB |\n|---|---|---|---|---|---|")
    for row in VARIANTS.values():
        if row.is_bundled and (not names or row.name in names):
            for title, pairs in benchmarks_of(row, data / "bench"):
                before, after = score(engine, row, list(pairs))
                size_kb = find_weights(row, None).stat().st_size / 1000
                figures = f"{before:.2f} | {after:.2f} | {after - before:+.2f} |"
                print(f"| `{row.name}` | {size_kb:.0f} kB | {title} | {figures}", flush=True)


def benchmarks_of(row: Variant, bench: Path) -> Iterator[tuple[str, Iterator[Pair]]]:
    """Yield (title, pairs) for a variant, the main set first: images never trained on, degraded by a fixed seed."""
    if row.task == "real_sr":
        paths = sorted((bench / "Set5" / "HR").iterdir())
        yield f"Set5 x{row.scale}, bicubic, noise 5, JPEG 70", (_degraded(read(path), row.scale) for path in paths)
        yield f"Set5 x{row.scale}, bicubic alone", published_pairs(bench, row.scale)
    elif row.task.endswith("_sr"):
        yield f"Set5 x{row.scale}, luminance", published_pairs(bench, row.scale)
    else:
        what = f"noise of {row.strength}" if row.task.endswith("denoise") else f"JPEG quality {row.strength}"
        yield f"{GREY_SETS.get(row.task, 'Set5')}, {what}", same_size_pairs(row, image_paths(row, bench))


def image_paths(row: Variant, bench: Path) -> list[Path]:
    """Return the clean images that a denoise or JPEG variant is measured on, in order."""
    return sorted((bench / GREY_SETS.get(row.task, "Set5/HR")).iterdir())


def published_pairs(bench: Path, scale: int) -> Iterator[Pair]:
    """Set5 and its bicubic inputs as published."""
    for path in sorted((bench / "Set5" / f"x{scale}").iterdir()):
        given = read(path)
        reference = read(bench / "Set5" / "HR" / path.name)
        yield given, reference[: given.shape[0] * scale, : given.shape[1] * scale]


def same_size_pairs(row: Variant, paths: list[Path]) -> Iterator[Pair]:
    """Images with noise, or a round through JPEG, of the variant's strength; grey ones in three equal channels."""
    rng = np.random.default_rng(0)
    strength = row.strength or 0
    for path in paths:
        target = read(path)
        if row.channels == 1:
            grey = np.asarray(Image.fromarray(target).convert("L"))[..., None]
            given = add_noise(grey, strength, rng) if row.task == "gray_denoise" else jpeg(grey, strength)
            yield given.repeat(3, axis=2), grey.repeat(3, axis=2)
        else:
            yield add_noise(target, strength, rng) if row.task == "color_denoise" else jpeg(target, strength), target


def score(engine: Engine, row: Variant, pairs: Iterable[Pair]) -> tuple[float, float]:
    """Mean PSNR in dB of the input (or bicubic) and of the variant as it is served, over (input, target) pairs."""
    return compare(lambda given: engine.restore(given[None], row.name).tiles[0], row.scale, pairs)


def compare(restore: Callable[[Any], Any], scale: int, pairs: Iterable[Pair]) -> tuple[float, float]:
    """Mean PSNR in dB of the input (or bicubic) and of the results of `restore`, over (input, target) pairs."""
    before: list[float] = []
    after: list[float] = []
    for given, target in pairs:
        plain = resize(given, target.shape[0], target.shape[1]) if scale > 1 else given
        for scores, image in ((before, plain), (after, restore(given))):
            if scale > 1:
                scores.append(luminance_psnr(image, target, border=scale))
            else:
                scores.append(psnr(image, target))
    return float(np.mean(before)), float(np.mean(after))


def read(path: Path) -> Any:
    """Read an image as uint8 [H, W, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _degraded(reference: Any, scale: int) -> Pair:
    height, width = reference.shape[0] // scale, reference.shape[1] // scale
    reference = reference[: height * scale, : width * scale]
    rng = np.random.default_rng(height * width)
    return jpeg(add_noise(resize(reference, height, width), 5.0, rng), 70), reference


if __name__ == "__main__":
    measure()
