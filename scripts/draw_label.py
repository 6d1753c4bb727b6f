"""Draws the example image of the page with text, a parcel label: `python -m scripts.draw_label OUT.png`.

It is drawn at eight times the size and scaled down, as a camera's lens does.
"""

from __future__ import annotations

import random
import sys

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, OVER = 300, 200, 8
LINES = (
    (22, 16, "Harbour Post"),
    (52, 10, "To: Museum of Small Images"),
    (66, 10, "Quay Street 12, Fourth Floor"),
    (80, 10, "From: Serverless SuperRes"),
    (108, 8, "Handle with care. Keep dry. Weight 225 g"),
    (120, 8, "Opened only by hand, never by machine"),
)


def draw() -> Image.Image:
    """Return the image, 300 x 200."""
    chance = random.Random(7)  # noqa: S311 - a drawing, not a secret
    image = Image.new("RGB", (WIDTH * OVER, HEIGHT * OVER), "#b58d5c")
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle((12 * OVER, 8 * OVER, 288 * OVER, 192 * OVER), 6 * OVER, fill="#f7f3e8")
    for y, size, text in LINES:
        pen.text(
            (24 * OVER, y * OVER), text, fill="#22242b", font=ImageFont.load_default(size=size * OVER), anchor="lm"
        )
    pen.rectangle((24 * OVER, 94 * OVER, 276 * OVER, 95 * OVER), fill="#22242b")
    x = 24.0
    while x < 190:  # a bar code
        width = chance.choice((1.0, 1.0, 2.0, 3.0))
        pen.rectangle((x * OVER, 134 * OVER, (x + width) * OVER, 172 * OVER), fill="#22242b")
        x += width + chance.choice((1.0, 2.0, 3.0))
    pen.text(
        (24 * OVER, 181 * OVER),
        "4 006381 333931",
        fill="#22242b",
        font=ImageFont.load_default(size=9 * OVER),
        anchor="lm",
    )
    pen.ellipse((212 * OVER, 132 * OVER, 268 * OVER, 184 * OVER), outline="#a4262c", width=2 * OVER)
    pen.text(
        (240 * OVER, 154 * OVER), "PRIORITY", fill="#a4262c", font=ImageFont.load_default(size=9 * OVER), anchor="mm"
    )
    pen.text(
        (240 * OVER, 166 * OVER), "29 NOV", fill="#a4262c", font=ImageFont.load_default(size=8 * OVER), anchor="mm"
    )
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    draw().save(sys.argv[1], optimize=True)
