"""Drawn training images: flat colours, text, thin rules, shapes and gratings in perspective, which photos rarely show.

Everything is drawn here from a seed; no files are read. Edges are antialiased by drawing at twice or three times the
size and averaging.
"""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

# Colours at the ends of the range, where a network that changes contrast shows it first.
EXTREME_COLOURS: tuple[Colour, ...] = (
    (0, 0, 0),
    (255, 255, 255),
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (0, 255, 255),
    (255, 0, 255),
    (250, 250, 250),
    (8, 8, 8),
)


def draw_images(count: int, side: int, seed: int) -> list[Pixels]:
    """Return `count` drawings, uint8 [side, side, 3], the kinds in turn: flats, text, rules, shapes, gratings."""
    rng = np.random.default_rng(seed)
    return [KINDS[index % len(KINDS)](side, rng) for index in range(count)]


def draw_flats(side: int, rng: np.random.Generator) -> Pixels:
    """One flat colour, or a grid of flat rectangles of 32 pixels and more."""
    image = np.empty((side, side, 3), np.uint8)
    cell = side if rng.random() < 0.3 else int(rng.integers(32, max(33, side // 2)))
    for top in range(0, side, cell):
        for left in range(0, side, cell):
            image[top : top + cell, left : left + cell] = _colour(rng)
    return image


def draw_text(side: int, rng: np.random.Generator) -> Pixels:
    """Lines of random letters of 8 to 40 pixels, dark on light or light on dark."""
    paper, ink = _two_colours(rng)
    image = Image.new("RGB", (side, side), paper)
    drawing = ImageDraw.Draw(image)
    letters = list(string.ascii_letters + string.digits + "    .,;:!?()-+")
    top = 4
    while top < side:
        size = int(rng.integers(8, 41))
        text = "".join(rng.choice(letters, size=2 * side // size + 4))
        drawing.text((4 - int(rng.integers(0, size)), top), text, fill=ink, font=ImageFont.load_default(size))
        top += size + int(rng.integers(2, size + 3))
    return np.array(image)


def draw_rules(side: int, rng: np.random.Generator) -> Pixels:
    """Straight lines of 1 to 4 pixels: a ruled table, or lines of any direction."""
    paper, ink = _two_colours(rng)
    image = Image.new("RGB", (2 * side, 2 * side), paper)
    drawing = ImageDraw.Draw(image)
    if rng.random() < 0.5:
        pitch, width = int(rng.integers(6, 41)), 2 * int(rng.integers(1, 4))
        for place in range(int(rng.integers(0, pitch)), side, pitch):
            drawing.line((2 * place, 0, 2 * place, 2 * side), fill=ink, width=width)
            drawing.line((0, 2 * place, 2 * side, 2 * place), fill=ink, width=width)
    else:
        for _ in range(side // 6):
            ends = [int(value) for value in rng.integers(0, 2 * side, 4)]
            drawing.line(ends, fill=ink if rng.random() < 0.7 else _colour(rng), width=int(rng.integers(2, 9)))
    return _shrink(np.asarray(image), 2)


def draw_shapes(side: int, rng: np.random.Generator) -> Pixels:
    """Filled ellipses, rectangles and triangles of flat colours over one another, as in drawings and logos."""
    image = Image.new("RGB", (2 * side, 2 * side), _colour(rng))
    drawing = ImageDraw.Draw(image)
    for _ in range(24):
        x, y = (int(value) for value in rng.integers(-side // 4, 2 * side, 2))
        width, height = (int(value) for value in rng.integers(8, side, 2))
        fill, outline = _colour(rng), _colour(rng) if rng.random() < 0.5 else None
        kind = int(rng.integers(3))
        if kind == 0:
            drawing.ellipse((x, y, x + width, y + height), fill, outline, width=3)
        elif kind == 1:
            drawing.rectangle((x, y, x + width, y + height), fill, outline, width=3)
        else:
            drawing.polygon(((x, y), (x + width, y + height // 2), (x + width // 3, y + height)), fill, outline)
    return _shrink(np.asarray(image), 2)


def draw_grating(side: int, rng: np.random.Generator) -> Pixels:
    """Stripes, bricks or windows of 4 to 40 pixels on a plane seen in perspective, like the front of a building."""
    fine = 3
    y, x = (np.mgrid[0 : side * fine, 0 : side * fine].astype(np.float32) + 0.5) / (side * fine) - 0.5
    tilt_x, tilt_y = rng.uniform(-0.9, 0.9, 2)
    depth = 1.0 + tilt_x * x + tilt_y * y
    angle = rng.uniform(0, np.pi) if rng.random() < 0.5 else rng.normal(0, 0.1)
    u, v = (x * np.cos(angle) + y * np.sin(angle)) / depth, (y * np.cos(angle) - x * np.sin(angle)) / depth
    across, down = side / rng.uniform(4, 40, 2)
    share_across, share_down = rng.uniform(0.2, 0.8, 2)
    row = np.floor(v * down)
    offset = 0.5 * (row % 2) if rng.random() < 0.3 else 0.0  # bricks
    inside = (u * across + offset) % 1.0 < share_across
    if rng.random() < 0.6:  # else stripes
        inside &= (v * down) % 1.0 < share_down
    one, two = np.array(_two_colours(rng), np.float32)
    light = 1.0 + rng.uniform(-0.4, 0.4) * x + rng.uniform(-0.4, 0.4) * y
    image = np.where(inside[..., None], one, two) * light[..., None]
    return _shrink(np.clip(np.rint(image), 0, 255).astype(np.uint8), fine)


def _shrink(pixels: Pixels, times: int) -> Pixels:
    size = (pixels.shape[1] // times, pixels.shape[0] // times)
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _colour(rng: np.random.Generator) -> Colour:
    if rng.random() < 0.3:
        return EXTREME_COLOURS[int(rng.integers(len(EXTREME_COLOURS)))]
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return (red, green, blue) if rng.random() < 0.7 else (red, red, red)


def _two_colours(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Two colours at least 60 levels apart in their mean: text on paper."""
    if rng.random() < 0.4:
        pair: tuple[Colour, Colour] = ((255, 255, 255), (0, 0, 0))
        return pair if rng.random() < 0.7 else (pair[1], pair[0])
    one = two = _colour(rng)
    while abs(sum(one) - sum(two)) < 3 * 60:
        one, two = _colour(rng), _colour(rng)
    return one, two


KINDS: tuple[Callable[[int, np.random.Generator], Pixels], ...] = (
    draw_flats,
    draw_text,
    draw_rules,
    draw_shapes,
    draw_grating,
)
