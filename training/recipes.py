"""What each compact variant is trained for: its row in the zoo, and the damage that it learns to undo.

A degradation turns a target, uint8 [H, W, C], into the input of the network, [H / scale, W / scale, C] uint8 or
float32 of 0..255 (noise that no file has clipped). Each has a nominal strength, at which a run is measured, and draws
other strengths around it and undamaged pairs, so that a variant leaves clean images and flat colours alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from swinir.zoo import VARIANTS, Variant
from training.degradations import (
    Pixels,
    add_coloured_noise,
    add_noise,
    add_sensor_noise,
    add_unclipped_noise,
    blur,
    double_jpeg,
    jpeg,
    resize,
    sharpen,
    to_grey,
    webp,
)

Degrade = Callable[[Pixels, np.random.Generator], Any]

# Shares of pairs. Nominal strengths are drawn often enough that a variant loses little at the strength in its name.
CLEAN_SHARE = 0.1
NOMINAL_SHARE = 0.4
NOMINAL_QUALITY_SHARE = 0.3
UNCLIPPED_SHARE = 0.5  # of noisy pairs
REAL_CLEAN_SHARE = 0.2
REAL_UNSHRUNK_SHARE = 0.3  # of damaged pairs: JPEG or WebP at the size of the input
MAX_SIGMA = 50.0


@dataclass(frozen=True)
class Degradation:
    """How targets become inputs."""

    draw: Degrade
    """Random strength, for training."""

    nominal: Degrade
    """The strength in the variant's name, for measuring."""

    border_px: int = 0
    """Input pixels around a crop that the damage of its pixels depends on."""


@dataclass(frozen=True)
class Recipe:
    """How one compact variant is trained."""

    variant: Variant
    degradation: Degradation
    drawn_share: float
    """Share of crops that come from drawings (`training.drawings`) instead of photos."""

    grey_share: float = 0.0
    """Share of crops in colour that are made grey, R = G = B, before they are damaged."""

    @property
    def scale(self) -> int:
        """Output side / input side."""
        return self.variant.scale

    @property
    def channels(self) -> int:
        """3 for RGB; 1 where the network sees luminance alone."""
        return self.variant.channels


def bicubic(scale: int) -> Degradation:
    """Pillow's antialiased bicubic at 1 / `scale`: the classical benchmark."""

    def shrink(target: Pixels, rng: np.random.Generator) -> Pixels:  # noqa: ARG001 - the signature of a degradation
        return resize(target, target.shape[0] // scale, target.shape[1] // scale)

    return Degradation(shrink, shrink, border_px=4)


def mixed_noise(sigma: float) -> Degradation:
    """White noise of 0 to 50 levels, `sigma` in 4 of 10 pairs; half of it unclipped float32; 1 of 10 pairs clean."""

    def draw(target: Pixels, rng: np.random.Generator) -> Any:
        chance = rng.random()
        if chance < CLEAN_SHARE:
            return target
        strength = sigma if chance < CLEAN_SHARE + NOMINAL_SHARE else float(rng.uniform(0.0, MAX_SIGMA))
        if rng.random() < UNCLIPPED_SHARE:
            return add_unclipped_noise(target, strength, rng)
        return add_noise(target, strength, rng)

    return Degradation(draw, lambda target, rng: add_noise(target, sigma, rng))


def mixed_jpeg(quality: int) -> Degradation:
    """JPEG of quality 10 to 100, `quality` in 3 of 10 pairs; 1 of 10 pairs clean."""

    def draw(target: Pixels, rng: np.random.Generator) -> Pixels:
        chance = rng.random()
        if chance < CLEAN_SHARE:
            return target
        return jpeg(target, quality if chance < CLEAN_SHARE + NOMINAL_QUALITY_SHARE else int(rng.integers(10, 101)))

    return Degradation(draw, lambda target, rng: jpeg(target, quality), border_px=8)  # noqa: ARG005


def real_world(scale: int) -> Degradation:
    """Damage of photos from phones and the web, at 1 / `scale`; 2 of 10 pairs are bicubic without damage."""

    def draw(target: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = target.shape[0] // scale, target.shape[1] // scale
        if rng.random() < REAL_CLEAN_SHARE:
            return resize(target, height, width)
        channels = target.shape[-1]
        if target.shape[-1] == 1 or (target == target[..., :1]).all():  # grey stored as RGB stays grey
            target = to_grey(target[..., :1])
        unshrunk = rng.random() < REAL_UNSHRUNK_SHARE
        damaged = repost(resize(target, height, width), rng) if unshrunk else photo_chain(target, scale, rng)
        return damaged if damaged.shape[-1] == channels else damaged.repeat(channels, axis=-1)

    def nominal(target: Pixels, rng: np.random.Generator) -> Pixels:
        small = resize(target, target.shape[0] // scale, target.shape[1] // scale)
        return jpeg(add_noise(small, 5.0, rng), 70)

    return Degradation(draw, nominal, border_px=8)


def repost(small: Pixels, rng: np.random.Generator) -> Pixels:
    """Damage at the size of the input: one or two JPEGs of quality 20 to 60, or WebP; blocks are not shrunk away."""
    chance = rng.random()
    if chance < 0.4:
        return jpeg(small, int(rng.integers(20, 61)))
    return double_jpeg(small, rng) if chance < 0.7 else webp(small, int(rng.integers(20, 71)))


def photo_chain(target: Pixels, scale: int, rng: np.random.Generator) -> Pixels:
    """Blur, resize, noise and JPEG in random order (BSRGAN, 2021, fig. 2), then noise, sharpening and a last codec.

    Noise that is added before the last resize is averaged away by it, hence the noise after it.
    """
    height, width = target.shape[0] // scale, target.shape[1] // scale
    pixels = target
    steps = ["blur", "blur", "resize", "noise", "jpeg"]
    rng.shuffle(steps)
    for step in steps:
        if step == "blur":
            pixels = blur(pixels, rng)
        elif step == "resize":
            pixels = _random_resize(pixels, scale, rng)
        elif step == "noise":
            pixels = add_sensor_noise(pixels, rng)
        else:
            pixels = jpeg(pixels, int(rng.integers(40, 96)))
    pixels = resize(pixels, height, width)
    chance = rng.random()
    if chance < 0.45:
        pixels = add_sensor_noise(pixels, rng)
    elif chance < 0.75:
        pixels = add_coloured_noise(pixels, float(rng.uniform(2.0, 15.0)), float(rng.uniform(1.0, 3.0)), rng)
    if rng.random() < 0.3:
        pixels = sharpen(pixels, rng)
    if rng.random() < 0.15:
        return webp(pixels, int(rng.integers(30, 91)))
    return jpeg(pixels, int(rng.integers(35, 96)))


def _random_resize(pixels: Pixels, scale: int, rng: np.random.Generator) -> Pixels:
    shrink = rng.uniform(1.0 / scale, 1.0)
    resample = rng.choice(np.array([Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX]))
    height, width = (max(1, int(side * shrink)) for side in pixels.shape[:2])
    return resize(pixels, height, width, Image.Resampling(int(resample)))


RECIPES = {
    name: Recipe(VARIANTS[name], degradation, drawn_share, grey_share)
    for name, degradation, drawn_share, grey_share in (
        ("compact_x4", bicubic(4), 0.05, 0.0),
        ("compact_x2", bicubic(2), 0.05, 0.0),
        ("compact_real_x4", real_world(4), 0.1, 0.1),
        ("compact_color_denoise_25", mixed_noise(25.0), 0.2, 0.05),
        ("compact_color_jpeg_20", mixed_jpeg(20), 0.2, 0.05),
        ("compact_gray_denoise_25", mixed_noise(25.0), 0.2, 0.0),
        ("compact_gray_jpeg_20", mixed_jpeg(20), 0.2, 0.0),
    )
}
