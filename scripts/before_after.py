"""Creates docs/images/before-after.jpg with the bundled weights: bicubic interpolation next to SwinIR.

Run it again when the weights change: ``python -m scripts.before_after``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.zoo import DEFAULT_VARIANT, VARIANTS

ROOT = Path(__file__).resolve().parent.parent
# Set5 image -> the square of its result that is shown (left, top, right, bottom).
SOURCES = {
    "butterfly": (0, 0, 256, 256),
    "bird": (24, 32, 280, 288),
}
GAP = 8


def main() -> None:
    """Write the image: one row per source, bicubic on the left, SwinIR on the right."""
    engine, rows = TorchEngine(), []
    for name, box in SOURCES.items():
        with Image.open(ROOT / "tests" / "data" / "Set5" / "x4" / f"{name}.png") as image:
            source = image.convert("RGB")
        bicubic = source.resize((source.width * 4, source.height * 4), Image.Resampling.BICUBIC)
        upscaled = Image.fromarray(restore_image(engine, np.array(source), VARIANTS[DEFAULT_VARIANT]))
        rows.append([each.crop(box).resize((384, 384), Image.Resampling.LANCZOS) for each in (bicubic, upscaled)])
    sheet = Image.new("RGB", (384 * 2 + GAP, (384 + GAP) * len(rows) + 28), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for column, title in enumerate(("before: bicubic, 4x", f"after: {DEFAULT_VARIANT}, 4x")):
        draw.text((column * (384 + GAP) + 4, 3), title, fill="black", font=font)
        for row, images in enumerate(rows):
            sheet.paste(images[column], (column * (384 + GAP), 28 + row * (384 + GAP)))
    target = ROOT / "docs" / "images" / "before-after.jpg"
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target, quality=92, subsampling=0)


if __name__ == "__main__":
    main()
