"""Photographs for training and validation: read once, degraded as each task's paper does, cropped at random.

Owns the degradations that need no network; knows nothing of the optimiser.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

NOISY_SHARE = 0.7
"""Of the real-world crops, those that have noise in the small picture."""

TRAINING_SETS = ("BSDS500_train", "BSDS500_test", "T91", "SunHays80")  # never BSDS500's val: that is BSD100


def read_photographs(folder: Path, *, grey: bool) -> list[Pixels]:
    """Every training photograph, uint8 [H, W, 3] (or [H, W, 1]); sides cropped to a multiple of 4."""
    paths = sorted(path for name in TRAINING_SETS for path in (folder / name).iterdir())
    if not paths:
        raise FileNotFoundError(f"no photographs under {folder}; expected the folders {', '.join(TRAINING_SETS)}")
    photographs = []
    for path in paths:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
        pixels = pixels[..., None] if grey else pixels
        photographs.append(np.ascontiguousarray(pixels[: pixels.shape[0] // 4 * 4, : pixels.shape[1] // 4 * 4]))
    return photographs


def resize(pixels: Pixels, height: int, width: int, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Pixels:
    """Antialiased resize; Pillow's bicubic has the kernel (a = -0.5) of the published LR images."""
    grey = pixels.shape[-1] == 1
    resized = Image.fromarray(pixels[..., 0] if grey else pixels).resize((width, height), resample)
    return np.asarray(resized)[..., None] if grey else np.asarray(resized)


def add_noise(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Additive white Gaussian noise of ``sigma`` levels, clipped and rounded to uint8 as an input file would be."""
    noisy = pixels + rng.normal(0.0, sigma, pixels.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    """The image after a round through JPEG of this quality (4:2:0 chroma, as cameras and the web write it)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        decoded = np.asarray(image)
    return decoded[..., None] if decoded.ndim == 2 else decoded


def real_world(pixels: Pixels, scale: int, rng: np.random.Generator) -> Pixels:
    """Blur, resize, noise and JPEG in a random order, ending at 1 / ``scale``: BSRGAN's recipe (2021, fig. 2)."""
    height, width = pixels.shape[0] // scale, pixels.shape[1] // scale
    steps = ["blur", "blur", "resize", "noise", "jpeg"]
    rng.shuffle(steps)
    for step in steps:
        if step == "blur":
            pixels = blur(pixels, rng)
        elif step == "resize":
            shrink = rng.uniform(1.0 / scale, 1.0)
            resample = rng.choice(np.array([Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX]))
            target = (max(height, int(pixels.shape[0] * shrink)), max(width, int(pixels.shape[1] * shrink)))
            pixels = resize(pixels, *target, Image.Resampling(int(resample)))
        elif step == "noise":
            pixels = _sensor_noise(pixels, rng)
        else:
            pixels = jpeg(pixels, int(rng.integers(40, 96)))
    pixels = resize(pixels, height, width)
    if rng.random() < NOISY_SHARE:  # what is added before shrinking is averaged away: small sensors are noisy at last
        pixels = _sensor_noise(pixels, rng)
    return jpeg(pixels, int(rng.integers(35, 96)))


def blur(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """An anisotropic Gaussian blur of random width and direction (21 taps a side at most)."""
    import torch  # noqa: PLC0415 - only this recipe convolves; the other degradations stay free of torch

    radius = 7
    sigma_y, sigma_x = rng.uniform(0.2, 2.4, 2)
    angle = rng.uniform(0, np.pi)
    ys, xs = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    along, across = xs * np.cos(angle) + ys * np.sin(angle), ys * np.cos(angle) - xs * np.sin(angle)
    kernel = np.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))
    weight = torch.from_numpy((kernel / kernel.sum()).astype(np.float32))[None, None]
    planes = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[:, None].float()
    planes = torch.nn.functional.pad(planes, (radius,) * 4, mode="reflect")
    blurred = torch.nn.functional.conv2d(planes, weight)[:, 0].permute(1, 2, 0)
    return blurred.round().clamp(0, 255).to(torch.uint8).numpy()


def _sensor_noise(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    sigma = rng.uniform(1.0, 25.0) if rng.random() < 0.5 else rng.uniform(1.0, 8.0)
    if rng.random() < 0.4:  # the same noise in every channel
        shared = rng.normal(0.0, sigma, (*pixels.shape[:2], 1))
        return np.clip(np.rint(pixels + shared), 0, 255).astype(np.uint8)
    return add_noise(pixels, float(sigma), rng)


class Crops:
    """Random aligned (input, target) crops, flipped and turned, of photographs degraded by one task's recipe."""

    def __init__(self, photographs: list[Pixels], recipe: str, scale: int, seed: int) -> None:
        self._photographs = photographs
        self._recipe = recipe
        self._scale = scale
        self._rng = np.random.default_rng(seed)
        self._small: list[Pixels] = []
        if recipe == "bicubic":  # deterministic: shrink whole photographs once
            self._photographs = [p[: p.shape[0] // scale * scale, : p.shape[1] // scale * scale] for p in photographs]
            self._small = [resize(p, p.shape[0] // scale, p.shape[1] // scale) for p in self._photographs]

    def batches(self, patch: int, batch: int) -> Iterator[tuple[Pixels, Pixels]]:
        """Endless (input [B, patch, patch, C], target [B, patch * scale, patch * scale, C]); larger ones more often.

        Raises ValueError when no photograph is as large as the target.
        """
        chances = self._chances(patch)
        while True:
            pairs = [self._draw(patch, chances) for _ in range(batch)]
            yield np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])

    def _chances(self, patch: int) -> npt.NDArray[np.float64]:
        least = patch * self._scale
        sides = [photograph.shape[:2] for photograph in self._photographs]
        areas = np.array([height * width if min(height, width) >= least else 0 for height, width in sides], np.float64)
        if not areas.any():
            raise ValueError(
                f"None of {len(sides)} photographs has {least} pixels on both sides, as crops of {patch} pixels "
                f"at scale {self._scale} take. Train on larger ones or with a smaller patch."
            )
        return areas / areas.sum()

    def _draw(self, patch: int, chances: npt.NDArray[np.float64]) -> tuple[Pixels, Pixels]:
        rng, scale = self._rng, self._scale
        index = int(rng.choice(len(self._photographs), p=chances))
        target = self._photographs[index]
        height, width = target.shape[0] // scale, target.shape[1] // scale
        # Real degradations see around the crop; 8 input pixels on each side are enough for their kernels.
        border = 8 if self._recipe.startswith(("real", "jpeg")) else 0
        need = min(patch + 2 * border, height, width)  # a photograph hardly larger than the crop has less around it
        top, left = int(rng.integers(0, height - need + 1)), int(rng.integers(0, width - need + 1))
        wide = target[top * scale : (top + need) * scale, left * scale : (left + need) * scale]
        given = self._small[index][top : top + need, left : left + need] if self._small else self._degrade(wide)
        trim = (need - patch) // 2
        given = given[trim : trim + patch, trim : trim + patch]
        wide = wide[trim * scale : (trim + patch) * scale, trim * scale : (trim + patch) * scale]
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        given, wide = np.rot90(given, turns), np.rot90(wide, turns)
        return (given[:, ::-1], wide[:, ::-1]) if mirrored else (given, wide)

    def _degrade(self, target: Pixels) -> Pixels:
        name, _, strength = self._recipe.partition(":")
        if name == "noise":
            return add_noise(target, float(strength), self._rng)
        if name == "jpeg":
            return jpeg(target, int(strength))
        if name == "real":
            return real_world(target, self._scale, self._rng)
        raise ValueError(f"recipe is {self._recipe!r}; it must be bicubic, noise:SIGMA, jpeg:QUALITY or real")
