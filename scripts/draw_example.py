"""Draws the example image of the page, a harbour in the evening with edges, text, ropes and stones.

`python -m scripts.draw_example OUT.png` draws at eight times the size and scales down, as a camera's lens does.
"""

from __future__ import annotations

import math
import random
import sys

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, OVER = 400, 300, 8


def draw() -> Image.Image:
    """Return the image, 400 x 300."""
    chance = random.Random(4)  # noqa: S311 - a drawing, not a secret
    image = Image.new("RGB", (WIDTH * OVER, HEIGHT * OVER))
    pen = ImageDraw.Draw(image)
    _sky(pen)
    _houses(pen, chance)
    _water(pen, chance)
    for x, y, size, colour in ((70, 232, 1.0, "#b3402e"), (205, 252, 1.35, "#27527a"), (330, 228, 0.9, "#3f7a52")):
        _boat(pen, x, y, size, colour)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _box(*values: float) -> tuple[float, ...]:
    return tuple(value * OVER for value in values)


def _line(pen: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: str, width: float) -> None:
    pen.line([(x * OVER, y * OVER) for x, y in points], fill=colour, width=max(1, round(width * OVER)), joint="curve")


def _sky(pen: ImageDraw.ImageDraw) -> None:
    for y in range(190 * OVER):
        part = y / (190 * OVER)
        pen.line((0, y, WIDTH * OVER, y), fill=(int(70 + 180 * part), int(105 + 85 * part), int(170 - 30 * part)))
    pen.ellipse(_box(286, 34, 322, 70), fill="#fff0c9")
    for x, y, size in ((60, 40, 7), (84, 52, 5), (130, 30, 6), (230, 48, 5)):
        gull = [(x + t * size, y - abs(math.sin(t * math.pi)) * size * 0.45) for t in (-1, -0.75, -0.5, -0.25, 0)]
        gull += [(2 * x - a, b) for a, b in reversed(gull)]
        _line(pen, gull, "#30343f", 0.9)


def _houses(pen: ImageDraw.ImageDraw, chance: random.Random) -> None:
    names = ("CAFE NORD", "NETZE", "FISCH", "HOTEL", "BUCH", "TEE")
    walls = ("#d9b25f", "#a3493c", "#e6dcc8", "#56788c", "#c97f4e", "#7d8f5d")
    left = -6.0
    for name, wall in zip(names, walls, strict=True):
        width, top = chance.uniform(64, 80), chance.uniform(78, 108)
        right = left + width
        pen.rectangle(_box(left, top, right, 192), fill=wall)
        middle = (left + right) / 2
        roof = [(left - 2, top), (middle, top - chance.uniform(20, 34)), (right + 2, top)]
        pen.polygon([(x * OVER, y * OVER) for x, y in roof], fill="#4a302c")
        peak = roof[1][1]
        for row in range(1, 12):
            y = peak + (top - peak) * row / 12
            half = (width / 2 + 2) * row / 12
            _line(pen, [(middle - half, y), (middle + half, y)], "#6d4a42", 0.35)
        for y in range(int(top) + 3, 190, 4):
            _line(pen, [(left, y), (right, y)], _darker(wall), 0.25)
        for row in range(2):
            for column in range(3):
                x, y = left + width * (column + 0.5) / 3 - 6, top + 10 + row * 30
                lit = chance.random() < 0.45
                pen.rectangle(_box(x - 1.2, y - 1.2, x + 13.2, y + 19.2), fill="#f3ead8")
                pen.rectangle(_box(x, y, x + 12, y + 18), fill="#ffdf8a" if lit else "#2f3b4c")
                _line(pen, [(x + 6, y), (x + 6, y + 18)], "#f3ead8", 0.8)
                _line(pen, [(x, y + 7), (x + 12, y + 7)], "#f3ead8", 0.8)
        pen.rectangle(_box(left + 5, 166, right - 5, 178), fill="#20242c")
        font = ImageFont.load_default(size=9.5 * OVER)
        pen.text((middle * OVER, 172 * OVER), name, fill="#fff4d6", font=font, anchor="mm")
        left = right


def _darker(colour: str) -> str:
    return "#" + "".join(f"{int(int(colour[i : i + 2], 16) * 0.88):02x}" for i in (1, 3, 5))


def _water(pen: ImageDraw.ImageDraw, chance: random.Random) -> None:
    for y in range(192 * OVER, HEIGHT * OVER):
        part = (y / OVER - 192) / (HEIGHT - 192)
        pen.line((0, y, WIDTH * OVER, y), fill=(int(96 - 55 * part), int(122 - 45 * part), int(142 - 30 * part)))
    for left in range(0, WIDTH, 9):
        for row in range(2):
            shade = chance.choice(("#6f6a63", "#7d776f", "#666059"))
            start = left + 4.5 * row
            pen.rounded_rectangle(_box(start, 186 + 5 * row, start + 8.4, 190.4 + 5 * row), radius=OVER, fill=shade)
    for _ in range(420):
        x, wave_y = chance.uniform(0, WIDTH), chance.uniform(200, HEIGHT)
        size = 1 + (wave_y - 195) / 14
        colour = chance.choice(("#f2d9a0", "#c9d4d6", "#35556b", "#2c465a"))
        wave = [
            (x - size, wave_y),
            (x - size / 2, wave_y - 0.5),
            (x, wave_y),
            (x + size / 2, wave_y + 0.5),
            (x + size, wave_y),
        ]
        _line(pen, wave, colour, 0.35 + (wave_y - 195) / 260)


def _boat(pen: ImageDraw.ImageDraw, x: float, y: float, size: float, colour: str) -> None:
    def at(dx: float, dy: float) -> tuple[float, float]:
        return (x + dx * size, y + dy * size)

    mast, foot, bow, stern = at(0, -72), at(0, 0), at(34, -8), at(-30, -6)
    sail = [at(2, -68), at(2, -8), at(26, -8)]
    pen.polygon([(a * OVER, b * OVER) for a, b in sail], fill="#f5efe0")
    for part in range(1, 6):
        _line(pen, [at(2, -68 + 12 * part - 2), at(2 + 4.6 * part, -68 + 12 * part)], "#c9bfa6", 0.4)
    _line(pen, [mast, foot], "#5a4326", 1.6 * size)
    for end in (bow, stern):
        _line(pen, [mast, end], "#2b2b2b", 0.45)
    hull = [at(-32, -7), at(36, -9), at(26, 8), at(-24, 8)]
    pen.polygon([(a * OVER, b * OVER) for a, b in hull], fill=colour)
    _line(pen, [at(-31.5, -4.6), at(34.6, -6.4)], "#f5efe0", 1.1 * size)
    for part in range(-2, 3):
        cx, cy = at(part * 10, 1.5)
        pen.ellipse(_box(cx - 1.6 * size, cy - 1.6 * size, cx + 1.6 * size, cy + 1.6 * size), fill="#f2d9a0")


if __name__ == "__main__":
    draw().save(sys.argv[1], optimize=True)
