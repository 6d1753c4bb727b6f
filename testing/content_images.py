"""Draws small images of each kind that `preprocessing.content` tells apart. Uses numpy and Pillow only."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFilter, ImageFont

from testing.images import Pixels, encode_jpeg


def draw_clean_photo(height: int = 200, width: int = 240, seed: int = 0) -> Pixels:
    """Draw smooth light, soft edges, texture in places and the weak noise of a good camera."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    image = np.empty((height, width, 3))
    for channel in range(3):
        slope_y, slope_x, phase = random.uniform(-1, 1, 3)
        image[..., channel] = 128 + 60 * np.sin(4 * (slope_y * y + slope_x * x + phase))
    for _ in range(8):
        centre_y, centre_x, radius = random.uniform(0, 1, 3) * (1, 1, 0.25)
        inside = 1 / (1 + np.exp(150 * (np.hypot(y - centre_y, x - centre_x) - radius)))
        image += (inside * random.uniform(-60, 60))[..., np.newaxis]
    grain = PilImage.fromarray(random.integers(0, 256, (height, width), np.uint8)).filter(ImageFilter.GaussianBlur(1))
    image += ((np.asarray(grain) - 128.0) * 0.5 * (x > 0.6))[..., np.newaxis] + random.normal(0, 1.2, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def add_noise(pixels: Pixels, sigma: float, seed: int = 0) -> Pixels:
    """Add white noise of a standard deviation in levels."""
    noisy = pixels + np.random.default_rng(seed).normal(0, sigma, pixels.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def pass_through_jpeg(pixels: Pixels, quality: int) -> Pixels:
    """Return the pixels as a JPEG of this quality keeps them."""
    return np.array(PilImage.open(BytesIO(encode_jpeg(pixels, quality=quality))).convert("RGB"))


def draw_screenshot(height: int = 160, width: int = 240) -> Pixels:
    """Draw a window with lines of antialiased text and a button, as on a screen."""
    image = PilImage.new("RGB", (width, height), (245, 246, 248))
    drawing = ImageDraw.Draw(image)
    drawing.rectangle((0, 0, width, 24), fill=(38, 70, 130))
    drawing.text((8, 4), "Settings and more", fill=(255, 255, 255), font=ImageFont.load_default(14))
    for line in range(4):
        drawing.text(
            (10, 34 + 20 * line), f"Line {line} of the text 0123456789", (30, 30, 30), ImageFont.load_default(13)
        )
    drawing.rounded_rectangle((20, height - 40, 120, height - 14), 6, fill=(70, 140, 70))
    return np.array(image)


def draw_comic(side: int = 176, seed: int = 0) -> Pixels:
    """Draw shapes of few colours with black outlines, antialiased, lit from one corner, so hardly flat."""
    random = np.random.default_rng(seed)
    image = PilImage.new("RGB", (4 * side, 4 * side), (90, 170, 225))
    drawing = ImageDraw.Draw(image)
    for _ in range(14):
        x, y, width, height = (int(value) for value in random.integers(side // 2, 2 * side, 4))
        x, y = x * 2 - side, y * 2 - side
        colour = tuple(int(value) for value in random.choice([20, 90, 200, 240], 3))
        drawing.ellipse((x, y, x + width, y + height), fill=colour, outline=(12, 12, 14), width=10)
    small = np.asarray(image.resize((side, side), PilImage.Resampling.BOX), np.float64)
    light = np.linspace(0.4, 1.0, side)[:, np.newaxis] * np.linspace(0.6, 1.0, side)
    return np.clip(np.rint(small * light[..., np.newaxis]), 0, 255).astype(np.uint8)


def draw_pixel_art(seed: int = 0) -> Pixels:
    """Draw a scene of 96 x 96 pixels with hard edges and 6 colours: ground, sky and mirrored sprites of 12 pixels."""
    random = np.random.default_rng(seed)
    palette = random.integers(0, 256, (6, 3), np.uint8)
    scene = np.zeros((96, 96), np.intp)
    scene[70:] = 1
    for top in range(6, 90, 21):
        for left in range(5, 85, 19):
            half = np.where(random.random((12, 6)) < 0.55, random.integers(2, 6, (12, 6)), 0)
            sprite = np.concatenate([half, half[:, ::-1]], axis=1)
            target = scene[top : top + 12, left : left + 12]
            height, width = target.shape
            np.copyto(target, sprite[:height, :width], where=sprite[:height, :width] > 0)
    return palette[scene]


def repeat_pixels(pixels: Pixels, times: int) -> Pixels:
    """Enlarge by repeating each pixel."""
    return pixels.repeat(times, axis=0).repeat(times, axis=1)
