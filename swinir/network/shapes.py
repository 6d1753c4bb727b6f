"""The names and shapes of a network's parameters, from its configuration. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

# Mean of DIV2K, which the published code subtracts from RGB input.
RGB_MEAN = (0.4488, 0.4371, 0.4040)
# Channels of the reconstruction of "pixelshuffle" and "nearest+conv".
NUM_FEAT = 64
UPSAMPLERS = ("pixelshuffle", "pixelshuffledirect", "nearest+conv", "")

Shape = tuple[int, ...]


def parameter_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Return the shape of each parameter of `swinir.network.swinir.SwinIR` by its name.

    Raises ValueError for a configuration that describes no network.
    """
    return {f"{name}.{kind}" if kind else name: shape for name, kind, shape in _parameters(config)}


def _parameters(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Shape]]:
    dim, channels, connection = config["embed_dim"], config.get("in_chans", 3), config.get("resi_connection", "1conv")
    table, hidden = (2 * config["window_size"] - 1) ** 2, int(dim * config.get("mlp_ratio", 2.0))
    yield from _convolution("conv_first", channels, dim)
    yield from _pair("patch_embed.norm", (dim,))
    for group, (depth, heads) in enumerate(zip(config["depths"], config["num_heads"], strict=True)):
        if dim % heads:
            raise ValueError(f"embed_dim {dim} is not a multiple of {heads} heads")
        for index in range(depth):
            block = f"layers.{group}.residual_group.blocks.{index}"
            yield from _pair(f"{block}.norm1", (dim,))
            yield f"{block}.attn.relative_position_bias_table", "", (table, heads)
            yield from _pair(f"{block}.attn.qkv", (3 * dim, dim))
            yield from _pair(f"{block}.attn.proj", (dim, dim))
            yield from _pair(f"{block}.norm2", (dim,))
            yield from _pair(f"{block}.mlp.fc1", (hidden, dim))
            yield from _pair(f"{block}.mlp.fc2", (dim, hidden))
        yield from _connection(f"layers.{group}.conv", dim, connection)
    yield from _pair("norm", (dim,))
    yield from _connection("conv_after_body", dim, connection)
    yield from _reconstruction(config["upsampler"], config["upscale"], dim, channels)


def _reconstruction(upsampler: str, scale: int, dim: int, channels: int) -> Iterator[tuple[str, str, Shape]]:
    if upsampler not in UPSAMPLERS:
        raise ValueError(f"upsampler is {upsampler!r}; it must be one of {', '.join(map(repr, UPSAMPLERS))}")
    if upsampler == "pixelshuffledirect":
        yield from _convolution("upsample.0", dim, channels * scale**2)
        return
    if upsampler == "":
        yield from _convolution("conv_last", dim, channels)
        return
    yield from _convolution("conv_before_upsample.0", dim, NUM_FEAT)
    if upsampler == "pixelshuffle":
        for step, factor in enumerate(shuffle_factors(scale)):
            yield from _convolution(f"upsample.{2 * step}", NUM_FEAT, factor**2 * NUM_FEAT)
    elif scale not in (2, 4):
        raise ValueError(f"upsampler 'nearest+conv' has scale 2 or 4, not {scale}")
    else:
        for name in (*("conv_up1", "conv_up2")[: scale // 2], "conv_hr"):
            yield from _convolution(name, NUM_FEAT, NUM_FEAT)
    yield from _convolution("conv_last", NUM_FEAT, channels)


def shuffle_factors(scale: int) -> tuple[int, ...]:
    """Return the factors of the pixel shuffles of "pixelshuffle": one of 3, or one of 2 for each doubling."""
    if scale == 3:
        return (3,)
    steps = math.log2(scale) if scale > 0 else 0.5
    if steps != int(steps):
        raise ValueError(f"upsampler 'pixelshuffle' has scale 3 or a power of two, not {scale}")
    return (2,) * int(steps)


def _connection(name: str, dim: int, connection: str) -> Iterator[tuple[str, str, Shape]]:
    if connection == "1conv":
        yield from _convolution(name, dim, dim)
    elif connection == "3conv":
        yield from _convolution(f"{name}.0", dim, dim // 4)
        yield from _convolution(f"{name}.2", dim // 4, dim // 4, kernel=1)
        yield from _convolution(f"{name}.4", dim // 4, dim)
    else:
        raise ValueError(f"resi_connection is {connection!r}; it must be '1conv' or '3conv'")


def _convolution(name: str, inputs: int, outputs: int, kernel: int = 3) -> Iterator[tuple[str, str, Shape]]:
    yield from _pair(name, (outputs, inputs, kernel, kernel))


def _pair(name: str, shape: Shape) -> Iterator[tuple[str, str, Shape]]:
    yield name, "weight", shape
    yield name, "bias", shape[:1]
