"""Measure the bundled weights on images they never saw: ``python -m training.measure --data DIR [NAME...]``.

Through the engine that serves, uint8 in and uint8 out; prints the table of docs/reference/variants.md: PSNR, SSIM, a
distance of VGG features and BRISQUE. The last two need the packages of benchmarks/packages.txt.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
from PIL import Image

from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.weights.find import find_weights
from swinir.zoo import VARIANTS, Variant
from training.degradations import add_noise, jpeg, resize
from training.metrics import luminance_psnr, luminance_ssim, psnr
from training.packages import PackageMissingError
from training.perceptual import Perceptual

BUNDLED = tuple(row.name for row in VARIANTS.values() if row.is_bundled)
COLUMNS = ("variant", "file", "measured on", "before, dB", "after, dB", "gain, dB", "SSIM", "VGG distance", "BRISQUE")
HEADER = (f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|")
# The benchmarks of grey variants; the others are measured on Set5.
GREY_SETS = {"gray_denoise": "Set12", "gray_jpeg": "classic5"}

Pair = tuple[Any, Any]
"""(input of the variant, target), uint8 [H, W, 3]."""


@dataclass(frozen=True)
class Quality:
    """Means over the images of a benchmark."""

    psnr_db: float
    """Of the luminance without a border of `scale` pixels for upscaling, of all channels otherwise."""
    ssim: float
    """Of the luminance, with the same border."""
    vgg: float
    """Distance of VGG features to the target, `training.perceptual`."""
    brisque: float


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(BUNDLED))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Holds bench/.")
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="Measure these; needs one NAME.")
@click.option("--threads", default=2, show_default=True)
def measure(names: tuple[str, ...], data: Path, weights: Path | None, threads: int) -> None:
    """Print a line of the table for each bundled variant, or for those NAMED."""
    with engine_with(names, weights, threads) as engine:
        print("\n".join(HEADER))
        for name in names or BUNDLED:
            path = weights or find_weights(VARIANTS[name], None)
            for line in measure_variant(engine, VARIANTS[name], path, data / "bench", load_perceptual()):
                print(line, flush=True)


@contextmanager
def engine_with(names: Sequence[str], weights: Path | None, threads: int) -> Iterator[TorchEngine]:
    """Give an engine with the bundled weights, or with the file `weights` for the one variant that is named."""
    if weights and len(names) != 1:
        raise click.UsageError(f"--weights needs the NAME of one variant, got {len(names)}.")
    with TemporaryDirectory() as folder:
        if weights:
            shutil.copyfile(weights, Path(folder) / f"{names[0]}.safetensors")
        yield TorchEngine(Path(folder), device="cpu", threads=threads)


@functools.cache
def load_perceptual() -> Perceptual:
    """Load VGG and BRISQUE; ends the command with the way to install them if they are missing."""
    try:
        return Perceptual()
    except PackageMissingError as error:
        raise click.ClickException(str(error)) from error


def measure_variant(
    engine: TorchEngine, row: Variant, weights: Path, bench: Path, perceptual: Perceptual
) -> Iterator[str]:
    """Yield the lines of the table for a variant, one for each of its benchmarks; pairs are "before / after"."""
    size_kb = weights.stat().st_size / 1000
    for title, pairs in benchmarks_of(row, bench):
        before, after = assess(served(engine, row.name), row.scale, pairs, perceptual)
        cells = [
            f"`{row.name}`",
            f"{size_kb:.0f} kB",
            title,
            f"{before.psnr_db:.2f}",
            f"{after.psnr_db:.2f}",
            f"{after.psnr_db - before.psnr_db:+.2f}",
            f"{before.ssim:.3f} / {after.ssim:.3f}",
            f"{before.vgg:.3f} / {after.vgg:.3f}",
            f"{before.brisque:.1f} / {after.brisque:.1f}",
        ]
        yield f"| {' | '.join(cells)} |"


def assess(
    restore: Callable[[Any], Any], scale: int, pairs: Iterable[Pair], perceptual: Perceptual
) -> tuple[Quality, Quality]:
    """Return the quality of the input (or bicubic) and of the results of `restore`, over (input, target) pairs."""
    before: list[tuple[float, ...]] = []
    after: list[tuple[float, ...]] = []
    for given, target in pairs:
        before.append(_judge(enlarge(given, target, scale), target, scale, perceptual))
        after.append(_judge(restore(given), target, scale, perceptual))
    return _mean(before), _mean(after)


def assess_results(restore: Callable[[Any], Any], scale: int, pairs: Iterable[Pair], perceptual: Perceptual) -> Quality:
    """Return the quality of the results of `restore` alone, over (input, target) pairs."""
    return _mean([_judge(restore(given), target, scale, perceptual) for given, target in pairs])


def _judge(image: Any, target: Any, scale: int, perceptual: Perceptual) -> tuple[float, ...]:
    psnr_db = luminance_psnr(image, target, border=scale) if scale > 1 else psnr(image, target)
    ssim = luminance_ssim(image, target, border=scale if scale > 1 else 0)
    return psnr_db, ssim, perceptual.vgg_distance(image, target), perceptual.brisque(image)


def _mean(scores: Sequence[tuple[float, ...]]) -> Quality:
    return Quality(*(float(mean) for mean in np.mean(scores, axis=0)))


def benchmarks_of(row: Variant, bench: Path) -> Iterator[tuple[str, Iterator[Pair]]]:
    """Yield (title, pairs) for a variant, the main set first: images never trained on, degraded by a fixed seed."""
    if row.task == "real_sr":
        paths = sorted((bench / "Set5" / "HR").iterdir())
        yield f"Set5 x{row.scale}, bicubic, noise 5, JPEG 70", (degrade(read(path), row.scale) for path in paths)
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


def score(engine: TorchEngine, row: Variant, pairs: Iterable[Pair]) -> tuple[float, float]:
    """Mean PSNR in dB of the input (or bicubic) and of the variant as it is served, over (input, target) pairs."""
    return compare(served(engine, row.name), row.scale, pairs)


def served(engine: TorchEngine, name: str) -> Callable[[Any], Any]:
    """Return a function that restores one image as the variant is served, uint8 [H, W, 3] in and out."""
    return lambda given: restore_image(engine, given, VARIANTS[name])


def compare(restore: Callable[[Any], Any], scale: int, pairs: Iterable[Pair]) -> tuple[float, float]:
    """Mean PSNR in dB of the input (or bicubic) and of the results of `restore`, over (input, target) pairs."""
    before: list[float] = []
    after: list[float] = []
    for given, target in pairs:
        for scores, image in ((before, enlarge(given, target, scale)), (after, restore(given))):
            if scale > 1:
                scores.append(luminance_psnr(image, target, border=scale))
            else:
                scores.append(psnr(image, target))
    return float(np.mean(before)), float(np.mean(after))


def enlarge(given: Any, target: Any, scale: int) -> Any:
    """Bicubic to the size of the target; at scale 1 the image itself."""
    return resize(given, target.shape[0], target.shape[1]) if scale > 1 else given


def read(path: Path) -> Any:
    """Read an image as uint8 [H, W, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def degrade(reference: Any, scale: int) -> Pair:
    """Shrink, add noise of 5 levels (from a seed that depends on the size) and encode as JPEG of quality 70."""
    height, width = reference.shape[0] // scale, reference.shape[1] // scale
    reference = reference[: height * scale, : width * scale]
    rng = np.random.default_rng(height * width)
    return jpeg(add_noise(resize(reference, height, width), 5.0, rng), 70), reference


if __name__ == "__main__":
    measure()
