"""Side by side for the eye: ``python -m training.sheet PHOTO... --out SHEET.png --variant NAME...``.

One row per photo: a crop of it enlarged by bicubic and by each variant, through the engine that serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image, ImageDraw

from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.zoo import VARIANTS
from training.degradations import resize
from training.measure import read

CROP_PX = 72
TITLE_PX = 18


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--variant", "variants", multiple=True, required=True, type=click.Choice(list(VARIANTS)))
def draw_sheet(photos: tuple[Path, ...], out: Path, variants: tuple[str, ...]) -> None:
    """Draw the sheet. Every variant must have the same scale."""
    engine = TorchEngine(device="cpu")
    scale = VARIANTS[variants[0]].scale
    rows = []
    for path in photos:
        photo = read(path)
        bicubic = resize(photo, photo.shape[0] * scale, photo.shape[1] * scale)
        # The whole photo is restored and then cropped, as a user would see it, borders included.
        rows.append([bicubic, *(restore_image(engine, photo, VARIANTS[name]) for name in variants)])
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_rows(("bicubic", *variants), rows, CROP_PX * scale).save(out, quality=90)


def draw_rows(titles: Sequence[str], rows: Sequence[Sequence[Any]], side: int) -> Image.Image:
    """Draw the middle of each image, `side` pixels square, in its row below the titles."""
    sheet = Image.new("RGB", (len(titles) * side, TITLE_PX + len(rows) * side), "white")
    for column, title in enumerate(titles):
        ImageDraw.Draw(sheet).text((column * side + 4, 3), title, fill="black")
        for number, images in enumerate(rows):
            sheet.paste(Image.fromarray(crop(images[column], side)), (column * side, TITLE_PX + number * side))
    return sheet


def crop(image: Any, side: int) -> Any:
    """Cut the middle out; an image smaller than that is padded with white."""
    height, width = image.shape[:2]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    cut = image[top : top + side, left : left + side]
    white = np.full((side, side, 3), 255, np.uint8)
    white[: cut.shape[0], : cut.shape[1]] = cut
    return white


if __name__ == "__main__":
    draw_sheet()
