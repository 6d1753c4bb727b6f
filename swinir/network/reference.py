"""SwinIR in plain NumPy and float64, written from the paper: the reference that the C library has to agree with.

Shares no code with the paths it checks: windows are rolled and partitioned as in the published code, convolutions are
sums over shifted images. Slow; only for small inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Weights = Mapping[str, Array]

_RGB_MEAN = (0.4488, 0.4371, 0.4040)
_ERF = np.frompyfunc(math.erf, 1, 1)


def run_network(config: Mapping[str, Any], weights: Weights, images: Array) -> Array:
    """Return [B, H * scale, W * scale, C] for [B, H, W, C] in 0..1, sides multiples of the window."""
    scale, window = config["upscale"], config["window_size"]
    mean = np.array(_RGB_MEAN) if images.shape[-1] == 3 else 0.0
    x = (images.astype(np.float64) - mean) * config["img_range"]
    shallow = _convolve(x, weights, "conv_first")
    tokens = _normalise(shallow, weights, "patch_embed.norm")
    for group, (depth, heads) in enumerate(zip(config["depths"], config["num_heads"], strict=True)):
        before = tokens
        for index in range(depth):
            prefix = f"layers.{group}.residual_group.blocks.{index}."
            own = {name.removeprefix(prefix): each for name, each in weights.items() if name.startswith(prefix)}
            tokens = run_block(own, tokens, heads, window, shift=window // 2 if index % 2 else 0)
        tokens = _convolve_residual(tokens, weights, f"layers.{group}.conv", config) + before
    body = _normalise(tokens, weights, "norm")
    deep = _convolve_residual(body, weights, "conv_after_body", config) + shallow
    return _reconstruct(deep, x, weights, config["upsampler"], scale) / config["img_range"] + mean


def run_block(weights: Weights, images: Array, heads: int, window: int, *, shift: int) -> Array:
    """Return one Swin block (SwinIR eq. 6-8) over images [B, H, W, C]; sides are multiples of the window."""
    batch, height, width, dim = images.shape
    grid = (batch, height // window, window, width // window, window)
    rolled = np.roll(images, (-shift, -shift), axis=(1, 2))
    x = rolled.reshape(*grid, dim).transpose(0, 1, 3, 2, 4, 5).reshape(-1, window**2, dim).astype(np.float64)

    region = np.zeros((height, width))
    if shift:  # the nine regions of the published code
        for number, edge in enumerate((slice(0, -window), slice(-window, -shift), slice(-shift, None))):
            region[edge] += 3 * number
            region[:, edge] += number
    regions = np.repeat(region[None], batch, 0).reshape(grid).transpose(0, 1, 3, 2, 4).reshape(-1, window**2)
    mask = np.where(regions[:, :, None] == regions[:, None, :], 0.0, -100.0)

    ys, xs = np.divmod(np.arange(window**2), window)
    rows = (ys[:, None] - ys + window - 1) * (2 * window - 1) + xs[:, None] - xs + window - 1
    bias = weights["attn.relative_position_bias_table"][rows].transpose(2, 0, 1)

    qkv = _apply(_normalise(x, weights, "norm1"), weights, "attn.qkv")
    query, key, value = qkv.reshape(-1, window**2, 3, heads, dim // heads).transpose(2, 0, 3, 1, 4)
    scores = query @ key.swapaxes(-1, -2) * (dim // heads) ** -0.5 + bias + mask[:, None]
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    attended = (scores / scores.sum(-1, keepdims=True)) @ value
    x = x + _apply(attended.transpose(0, 2, 1, 3).reshape(x.shape), weights, "attn.proj")
    hidden = _apply(_normalise(x, weights, "norm2"), weights, "mlp.fc1")
    hidden = hidden * 0.5 * (1 + _ERF(hidden * 0.5**0.5).astype(np.float64))
    x = x + _apply(hidden, weights, "mlp.fc2")

    x = x.reshape(batch, height // window, width // window, window, window, dim).transpose(0, 1, 3, 2, 4, 5)
    return np.roll(x.reshape(images.shape), (shift, shift), axis=(1, 2))


def draw_block_weights(dim: int, hidden: int, heads: int, window: int, seed: int = 0) -> dict[str, Array]:
    """Return float32 weights of a block, normal with a deviation of a quarter."""
    shapes = {
        "norm1.weight": (dim,),
        "norm1.bias": (dim,),
        "attn.relative_position_bias_table": ((2 * window - 1) ** 2, heads),
        "attn.qkv.weight": (3 * dim, dim),
        "attn.qkv.bias": (3 * dim,),
        "attn.proj.weight": (dim, dim),
        "attn.proj.bias": (dim,),
        "norm2.weight": (dim,),
        "norm2.bias": (dim,),
        "mlp.fc1.weight": (hidden, dim),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (dim, hidden),
        "mlp.fc2.bias": (dim,),
    }
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape, np.float32) / 4 for name, shape in shapes.items()}


def _reconstruct(deep: Array, network_input: Array, weights: Weights, upsampler: str, scale: int) -> Array:
    if upsampler == "":
        return network_input + _convolve(deep, weights, "conv_last")
    if upsampler == "pixelshuffledirect":
        return _shuffle(_convolve(deep, weights, "upsample.0"), scale)
    x = _leaky(_convolve(deep, weights, "conv_before_upsample.0"), 0.01)
    if upsampler == "pixelshuffle":
        for step in range(1 if scale == 3 else round(math.log2(scale))):
            x = _shuffle(_convolve(x, weights, f"upsample.{2 * step}"), 3 if scale == 3 else 2)
        return _convolve(x, weights, "conv_last")
    for name in ("conv_up1", "conv_up2")[: scale // 2]:
        x = _leaky(_convolve(x.repeat(2, 1).repeat(2, 2), weights, name), 0.2)
    return _convolve(_leaky(_convolve(x, weights, "conv_hr"), 0.2), weights, "conv_last")


def _convolve_residual(x: Array, weights: Weights, name: str, config: Mapping[str, Any]) -> Array:
    if config["resi_connection"] == "1conv":
        return _convolve(x, weights, name)
    x = _leaky(_convolve(x, weights, f"{name}.0"), 0.2)
    return _convolve(_leaky(_convolve(x, weights, f"{name}.2"), 0.2), weights, f"{name}.4")


def _convolve(images: Array, weights: Weights, name: str) -> Array:
    weight = weights[f"{name}.weight"]
    size, (_, height, width, _) = weight.shape[-1], images.shape
    edge = size // 2
    wide = np.pad(images, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    out = np.zeros((*images.shape[:3], len(weight))) + weights[f"{name}.bias"]
    for y in range(size):
        for x in range(size):
            out += wide[:, y : y + height, x : x + width] @ weight[:, :, y, x].T
    return out


def _shuffle(images: Array, factor: int) -> Array:
    batch, height, width, channels = images.shape
    parts = images.reshape(batch, height, width, channels // factor**2, factor, factor)
    return parts.transpose(0, 1, 4, 2, 5, 3).reshape(batch, height * factor, width * factor, -1)


def _leaky(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, x * slope)


def _apply(x: Array, weights: Weights, name: str) -> Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _normalise(x: Array, weights: Weights, name: str) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]
