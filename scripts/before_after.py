"""Make docs/images/before-after.jpg with the shipped weights: what came in, enlarged plainly, and what comes out.

Run it again when the weights change: ``python -m scripts.before_after``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from swinir.inference.engine import Engine
from swinir.zoo import DEFAULT_VARIANT

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {
    "butterfly": (0, 0, 256, 256),
    "bird": (24, 32, 280, 288),
}
"""Set5 picture -> the square of its answer that is shown (left, top, right, bottom)."""
GAP = 8


def main() -> None:
    """Write the picture: a row a source, left bicubic, right SwinIR."""
    engine, rows = Engine(), []
    for name, box in SOURCES.items():
        with Image.open(ROOT / "tests" / "data" / "Set5" / "x4" / f"{name}.png") as image:
            given = image.convert("RGB")
        plain = given.resize((given.width * 4, given.height * 4), Image.Resampling.BICUBIC)
        upscaled = Image.fromarray(engine.restore(np.array(given)[None], DEFAULT_VARIANT).tiles[0])
        rows.append([picture.crop(box).resize((384, 384), Image.Resampling.LANCZOS) for picture in (plain, upscaled)])
    sheet = Image.new("RGB", (384 * 2 + GAP, (384 + GAP) * len(rows) + 28), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for column, title in enumerate(("before: bicubic, 4x", f"after: {DEFAULT_VARIANT}, 4x")):
        draw.text((column * (384 + GAP) + 4, 3), title, fill="black", font=font)
        for row, pictures in enumerate(rows):
            sheet.paste(pictures[column], (column * (384 + GAP), 28 + row * (384 + GAP)))
    target = ROOT / "docs" / "images" / "before-after.jpg"
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target, quality=92, subsampling=0)


if __name__ == "__main__":
    main()
