"""Twenty crops on which 4x variants are compared by BRISQUE and by eye: ``python -m training.crops --data DIR``.

Fifteen are cut from real photos, drawings and screenshots with damage; five are the images of Set5, shrunk, with noise
and JPEG. All are inputs of 57 to 128 pixels on each side, and none was in a training set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from swinir.zoo import VARIANTS
from training.degradations import Pixels, resize
from training.measure import degrade, engine_with, load_perceptual, read, served

SCALE = 4
NAMES = tuple(row.name for row in VARIANTS.values() if row.is_bundled and row.scale == SCALE)


@dataclass(frozen=True)
class Crop:
    """A square of a photo, in pixels."""

    title: str
    file: str
    """Name in bench/photos/."""
    left: int
    top: int
    side: int = 96

    def cut(self, photo: Pixels) -> Pixels:
        """Cut it out: [H, W, 3] -> [side, side, 3]; ValueError if the photo is too small."""
        bottom, right = self.top + self.side, self.left + self.side
        if bottom > photo.shape[0] or right > photo.shape[1]:
            raise ValueError(
                f"{self.title} ends at {right} x {bottom}, {self.file} is {photo.shape[1]} x {photo.shape[0]}"
            )
        return photo[self.top : bottom, self.left : right]


CROPS = (
    Crop("cartoon cat", "0014.jpg", 40, 0),
    Crop("anime face", "0030.jpg", 50, 16),
    Crop("anime armour", "0030.jpg", 60, 110),
    Crop("gable", "OST_009.png", 206, 24),
    Crop("shutters", "OST_009.png", 216, 136),
    Crop("chip, text", "chip.png", 0, 12),
    Crop("comic", "comic1.png", 12, 0),
    Crop("dog's eye", "dog.png", 46, 36),
    Crop("boxing glove", "dog.png", 196, 186),
    Crop("man with helmet", "foreman.png", 70, 0),
    Crop("board, text", "foreman.png", 10, 130),
    Crop("old portrait", "oldphoto2.png", 32, 40),
    Crop("slide, title", "ppt3.png", 16, 16),
    Crop("slide, text", "ppt3.png", 8, 144),
    Crop("tiger", "tiger.png", 196, 76),
)
DEGRADED = ("baby", "bird", "butterfly", "head", "woman")


def read_crops(bench: Path) -> Iterator[tuple[str, Pixels]]:
    """Yield (title, input uint8 [H, W, 3]) of the twenty crops."""
    for crop in CROPS:
        yield crop.title, crop.cut(read(bench / "photos" / crop.file))
    for name in DEGRADED:
        yield f"{name}, damaged", degrade(read(bench / "Set5" / "HR" / f"{name}.png"), scale=SCALE)[0]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Holds bench/.")
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="Measure these; needs one NAME.")
@click.option("--threads", default=1, show_default=True)
def measure_crops(names: tuple[str, ...], data: Path, weights: Path | None, threads: int) -> None:
    """Print BRISQUE of each crop by bicubic and by the bundled 4x variants, or by those NAMED; lower is better."""
    with engine_with(names, weights, threads) as engine:
        methods = {"bicubic": enlarge_crop} | {name: served(engine, name) for name in names or NAMES}
        scores = score_crops(methods, data / "bench", load_perceptual().brisque)
    print("\n".join(crop_table(scores)))


def score_crops(
    methods: Mapping[str, Callable[[Any], Any]], bench: Path, brisque: Callable[[Any], float]
) -> dict[str, dict[str, float]]:
    """Return {method: {title of the crop: BRISQUE}}."""
    scores: dict[str, dict[str, float]] = {name: {} for name in methods}
    for title, pixels in read_crops(bench):
        for name, restore in methods.items():
            scores[name][title] = round(brisque(restore(pixels)), 2)
    return scores


def crop_table(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return lines of Markdown: a row for each crop, a column for each method, the mean last."""
    lines = [f"| crop | {' | '.join(scores)} |", f"|---|{'---|' * len(scores)}"]
    titles = next(iter(scores.values()))
    lines += [f"| {title} | {' | '.join(f'{column[title]:.1f}' for column in scores.values())} |" for title in titles]
    means = (f"{np.mean(list(column.values())):.1f}" for column in scores.values())
    return [*lines, f"| **mean** | {' | '.join(means)} |"]


def enlarge_crop(pixels: Pixels) -> Pixels:
    """Bicubic 4x: [H, W, 3] -> [4H, 4W, 3]."""
    return resize(pixels, pixels.shape[0] * SCALE, pixels.shape[1] * SCALE)


if __name__ == "__main__":
    measure_crops()
