"""Creates docs/images/grey-noise.webp: noise that is the same in all channels, and what two denoising variants leave.

Run it again when the weights change: ``python -m scripts.grey_noise``.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from scripts.before_after import ROOT
from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.zoo import VARIANTS

NAMES = ("compact_color_denoise_25", "compact_gray_denoise_25")
SIGMA = 20
BOX = (16, 40, 272, 232)
SCALE, GAP, TITLE_PX = 1.5, 8, 28


def main() -> None:
    """Write the image: a grey photo and a colour one that was saved as JPEG, each as upload and by both variants."""
    with Image.open(ROOT / "tests/data/Set5/HR/bird.png") as file:
        photo = file.convert("RGB")
    grey = photo.convert("L").convert("RGB")
    noise = np.random.default_rng(0).normal(scale=SIGMA, size=(photo.height, photo.width, 3))
    jpeg = BytesIO()
    add_noise(photo, noise).save(jpeg, "JPEG", quality=90)
    engine = TorchEngine()
    rows = []
    with Image.open(jpeg) as file:
        noisy_jpeg = file.convert("RGB")
    for upload in (add_noise(grey, noise[..., :1]), noisy_jpeg):
        results = [Image.fromarray(restore_image(engine, np.array(upload), VARIANTS[name])) for name in NAMES]
        rows.append([crop(image) for image in (upload, *results)])
    width, height = rows[0][0].size
    sheet = Image.new("RGB", ((width + GAP) * 3 - GAP, (height + GAP) * 2 - GAP + TITLE_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for column, title in enumerate(("upload", *NAMES)):
        draw.text((column * (width + GAP) + 4, 3), title, fill="black", font=font)
        for row, images in enumerate(rows):
            sheet.paste(images[column], (column * (width + GAP), row * (height + GAP) + TITLE_PX))
    sheet.save(ROOT / "docs/images/grey-noise.webp", quality=75, method=6)


def add_noise(image: Image.Image, noise: npt.NDArray[np.float64]) -> Image.Image:
    """Return the image with noise in levels, [H, W, 3] or [H, W, 1]."""
    return Image.fromarray(np.clip(np.rint(np.asarray(image) + noise), 0, 255).astype(np.uint8))


def crop(image: Image.Image) -> Image.Image:
    """Return the part that is shown, enlarged."""
    part = image.crop(BOX)
    return part.resize((round(part.width * SCALE), round(part.height * SCALE)), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
