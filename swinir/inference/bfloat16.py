"""Decides whether a network on a CPU runs its blocks in bfloat16: where it is quicker and close enough. No torch."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from swinir.inference.pixel_rules import enlarge
from swinir.network import library
from swinir.network.packing import PackedBlock
from swinir.network.reference import draw_block_weights
from swinir.network.window_order import order_windows
from swinir.settings import Precision

log = logging.getLogger(__name__)

# Minimum PSNR of a network in bfloat16 against itself in float32, in dB, at which `auto` takes bfloat16. Tiles must
# agree within 80 dB: the errors of two passes add up (3 dB), and images may be harder than the test images (3 dB).
MIN_DB = 86.0
# bfloat16 must be quicker than float32 by this factor; some processors run both equally fast.
MIN_SPEED = 1.1
_ROUNDS = 5

Floats = npt.NDArray[np.float32]
# Returns the output of a network for images [N, H, W, C], in bfloat16 if true, else in float32.
RunIn = Callable[[Floats, bool], Floats]


def chooses_bfloat16(name: str, channels: int, precision: Precision, run: RunIn) -> bool:
    """Return whether a network's fused blocks shall run in bfloat16, and log it if they shall.

    `auto` takes bfloat16 if this processor is quicker with it, and if the network's outputs for test images stay within
    MIN_DB of those in float32.
    """
    if precision == "float32" or library.find_library() is None:
        return False
    if not library.has_bfloat16():
        if precision == "bfloat16":
            log.warning("%s runs in float32: this processor has no bfloat16 (AVX512-BF16)", name)
        return False
    distance_db = measure_bfloat16(channels, run)
    if precision != "bfloat16" and not (distance_db >= MIN_DB and _is_quicker()):
        return False
    log.info("%s runs its blocks in bfloat16: %.1f dB from float32", name, distance_db)
    return True


def measure_bfloat16(channels: int, run: RunIn) -> float:
    """Return the PSNR in dB between a network's outputs in float32 and bfloat16, for the worse of the test images.

    Infinite if they are equal; NaN if one output is not finite.
    """
    images = make_test_images(channels)
    rough, exact = (run(images, in_bfloat16).astype(np.float64) for in_bfloat16 in (True, False))
    error = float(((rough - exact) ** 2).mean(axis=(1, 2, 3)).max())
    return -10 * math.log10(error) if error else math.inf


def make_test_images(channels: int) -> Floats:
    """Return [2, 64, 64, channels] in 0..1, hard for the variants that the zoo has.

    The first has squares of colours, noise, thin lines and a gradient, the second the blocks of a strong JPEG.
    """
    random = np.random.RandomState(0)  # MT19937, whose numbers never change
    squares = _repeat(_draw(random, channels, 8), 8)
    squares[:, 32:, :32] = _draw(random, channels, 32)
    squares[:, ::4, 32:] = 0.0
    squares[:, 32:, 32:] = np.linspace(0, 1, 32, dtype=np.float32)[:, None]
    smooth = enlarge(_draw(random, channels, 8), 8)
    means = _repeat(smooth.reshape(1, 8, 8, 8, 8, channels).mean(axis=(2, 4)), 8)
    steps = np.float32(0.06) * _repeat(_draw_normal(random, channels, 8), 8)
    blocks = (means + np.float32(0.5) * (smooth - means) + steps).clip(0, 1)
    return np.ascontiguousarray(np.concatenate([squares, blocks]), np.float32)


def _draw(random: np.random.RandomState, channels: int, side: int) -> Floats:
    """Return the numbers that torch's generator draws from 0..1: 24 bits each, channel by channel."""
    count = channels * side * side
    bits = np.frombuffer(random.bytes(4 * count), "<u4") & 0xFFFFFF
    values = bits.astype(np.float32) / np.float32(1 << 24)
    return values.reshape(1, channels, side, side).transpose(0, 2, 3, 1).copy()


def _draw_normal(random: np.random.RandomState, channels: int, side: int) -> Floats:
    """Return the same of a normal distribution (Box-Muller, 16 numbers at a time)."""
    drawn = _draw(random, channels, side).transpose(0, 3, 1, 2).reshape(-1, 2, 8)
    radius, angle = np.sqrt(-2 * np.log(1 - drawn[:, 0])), np.float32(2 * math.pi) * drawn[:, 1]
    values = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return values.reshape(1, channels, side, side).transpose(0, 2, 3, 1).copy()


def _repeat(images: Floats, factor: int) -> Floats:
    return images.repeat(factor, 1).repeat(factor, 2)


@functools.cache
def _is_quicker() -> bool:
    """Return whether a block of the published medium size runs quicker in bfloat16 here: the best of some rounds."""
    weights = draw_block_weights(180, 360, heads=6, window=8)
    packed = {
        half: PackedBlock(weights, 6, shifted=False, products="bfloat16" if half else "float32")
        for half in (False, True)
    }
    orders, tokens = order_windows(1, 32, 32, 8), np.zeros((32 * 32, 180), np.float32)
    gather, kinds = orders.gather["image", "plain"], orders.kinds["plain"]
    runs = {
        half: functools.partial(block.run, library.load_library(), tokens, gather, kinds, threads=1)
        for half, block in packed.items()
    }
    return is_quicker(runs, MIN_SPEED)


def is_quicker(runs: Mapping[bool, Callable[[], object]], min_speed: float) -> bool:
    """Return whether ``runs[True]`` is ``min_speed`` times as fast as ``runs[False]``: the best of some rounds."""
    best = dict.fromkeys(runs, math.inf)
    for _ in range(_ROUNDS):
        for choice, run in runs.items():
            started = time.thread_time()
            run()
            best[choice] = min(best[choice], time.thread_time() - started)
    return best[False] >= min_speed * best[True]
