"""What damages images: resizing, blur, noise, JPEG, WebP and sharpening, each a function of pixels and a generator.

Images are uint8 [H, W, C] with C of 1 or 3. `training.recipes` combines these functions into training pairs.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Pixels = npt.NDArray[np.uint8]
FloatPixels = npt.NDArray[np.float32]


def resize(pixels: Pixels, height: int, width: int, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Pixels:
    """Antialiased resize; Pillow's bicubic has the kernel (a = -0.5) of the published LR images."""
    return _from_image(_to_image(pixels).resize((width, height), resample), pixels)


def add_noise(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Additive white Gaussian noise of `sigma` levels, clipped and rounded to uint8 as an input file would be."""
    return _to_uint8(pixels + rng.normal(0.0, sigma, pixels.shape))


def add_unclipped_noise(pixels: Pixels, sigma: float, rng: np.random.Generator) -> FloatPixels:
    """Additive white Gaussian noise of `sigma` levels, float32 and not clipped: its mean is that of the image."""
    noise = rng.standard_normal(pixels.shape, np.float32)
    noisy: FloatPixels = pixels.astype(np.float32) + np.float32(sigma) * noise
    return noisy


def add_coloured_noise(pixels: Pixels, sigma: float, width_px: float, rng: np.random.Generator) -> Pixels:
    """Noise of `sigma` levels in grains of `width_px` pixels, mostly chroma, as phones leave after denoising.

    An image of one channel gets the same grains in luminance.
    """
    height, width, channels = pixels.shape
    small = (max(2, round(height / width_px)), max(2, round(width / width_px)))
    coarse = rng.standard_normal((*small, channels), np.float32)
    planes = [
        Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
        for channel in range(channels)
    ]
    grains = np.stack([np.asarray(plane) for plane in planes], axis=-1)
    if channels > 1:
        grains = grains - 0.7 * grains.mean(axis=-1, keepdims=True)
    return _to_uint8(pixels + sigma * grains / max(float(grains.std()), 1e-6))


def add_sensor_noise(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """White noise of 1 to 25 levels, weak noise more often; in 4 of 10 images the same in every channel."""
    sigma = rng.uniform(1.0, 25.0) if rng.random() < 0.5 else rng.uniform(1.0, 8.0)
    if rng.random() < 0.4:
        return _to_uint8(pixels + rng.normal(0.0, sigma, (*pixels.shape[:2], 1)))
    return add_noise(pixels, float(sigma), rng)


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    """The image after a round through JPEG of this quality (4:2:0 chroma, as cameras and the web write it)."""
    return _encode(pixels, "JPEG", quality=quality)


def webp(pixels: Pixels, quality: int) -> Pixels:
    """The image after a round through lossy WebP of this quality."""
    return _encode(pixels, "WEBP", quality=quality)


def double_jpeg(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Two rounds through JPEG of quality 20 to 60, the second on a grid shifted by 0 to 7 pixels: a reposted image."""
    top, left = (int(value) for value in rng.integers(0, 8, 2))
    height, width = pixels.shape[:2]
    once = jpeg(pixels, int(rng.integers(20, 61)))
    padded = np.pad(once, ((top, 0), (left, 0), (0, 0)), mode="edge")
    return jpeg(padded, int(rng.integers(20, 61)))[top : top + height, left : left + width]


def sharpen(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Unsharp masking of radius 0.5 to 2 pixels and 50 to 200 %, as phones do after denoising."""
    unsharp = ImageFilter.UnsharpMask(radius=rng.uniform(0.5, 2.0), percent=int(rng.integers(50, 201)), threshold=0)
    return _from_image(_to_image(pixels).filter(unsharp), pixels)


def blur(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """An anisotropic Gaussian blur of random width (0.2 to 2.4 pixels) and direction, 15 taps on each side."""
    import torch  # noqa: PLC0415 - only this function convolves; the others stay free of torch

    radius = 7
    sigma_y, sigma_x = rng.uniform(0.2, 2.4, 2)
    angle = rng.uniform(0, np.pi)
    ys, xs = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    along, across = xs * np.cos(angle) + ys * np.sin(angle), ys * np.cos(angle) - xs * np.sin(angle)
    kernel = np.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))
    weight = torch.from_numpy((kernel / kernel.sum()).astype(np.float32))[None, None]
    planes = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()
    planes = torch.nn.functional.pad(planes, (radius,) * 4, mode="reflect")
    # One convolution of C groups takes half the time of a batch of C planes.
    weight = weight.expand(planes.shape[1], -1, -1, -1)
    blurred = torch.nn.functional.conv2d(planes, weight, groups=planes.shape[1])[0].permute(1, 2, 0)
    return blurred.round().clamp(0, 255).to(torch.uint8).numpy()


def to_grey(pixels: Pixels) -> Pixels:
    """BT.601 luminance, uint8 [H, W, 3] -> [H, W, 1]; one channel stays as it is."""
    return pixels if pixels.shape[-1] == 1 else np.array(Image.fromarray(pixels).convert("L"))[..., None]


def _encode(pixels: Pixels, format_name: str, quality: int) -> Pixels:
    buffer = io.BytesIO()
    _to_image(pixels).save(buffer, format_name, quality=quality)
    with Image.open(buffer) as image:
        return _from_image(image.convert("L" if pixels.shape[-1] == 1 else "RGB"), pixels)


def _to_uint8(values: npt.NDArray[Any]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _to_image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _from_image(image: Image.Image, like: Pixels) -> Pixels:
    decoded = np.asarray(image)
    return decoded[..., None] if like.shape[-1] == 1 else decoded
