"""Side by side for the eye: ``python -m training.sheet PHOTO... --out SHEET.png --variant NAME...``.

A row a photograph: a crop of it enlarged by bicubic and by each variant, through the engine that serves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image, ImageDraw

from swinir.inference.engine import Engine
from swinir.zoo import VARIANTS
from training.data import resize
from training.measure import read

CROP_PX = 72
TITLE_PX = 18


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--variant", "variants", multiple=True, required=True, type=click.Choice(list(VARIANTS)))
def draw_sheet(photos: tuple[Path, ...], out: Path, variants: tuple[str, ...]) -> None:
    """Draw the sheet; every variant must have the same scale."""
    engine = Engine(device="cpu")
    scale = VARIANTS[variants[0]].scale
    side = CROP_PX * scale
    sheet = Image.new("RGB", ((1 + len(variants)) * side, TITLE_PX + len(photos) * side), "white")
    for column, title in enumerate(("bicubic", *variants)):
        ImageDraw.Draw(sheet).text((column * side + 4, 3), title, fill="black")
    for row, path in enumerate(photos):
        photo = read(path)
        pictures = [crop(resize(photo, photo.shape[0] * scale, photo.shape[1] * scale), side)]
        # The whole photograph is restored and then cropped: what a visitor would see, borders included.
        pictures += [crop(engine.restore(photo[None].copy(), name).tiles[0], side) for name in variants]
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (column * side, TITLE_PX + row * side))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, quality=90)


def crop(picture: Any, side: int) -> Any:
    """Cut the middle out; a picture smaller than that is padded with white."""
    height, width = picture.shape[:2]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    cut = picture[top : top + side, left : left + side]
    white = np.full((side, side, 3), 255, np.uint8)
    white[: cut.shape[0], : cut.shape[1]] = cut
    return white


if __name__ == "__main__":
    draw_sheet()
