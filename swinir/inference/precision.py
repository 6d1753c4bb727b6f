"""Chooses the precision in which networks run: float32, or bfloat16 where it is quicker and close enough."""

from __future__ import annotations

import functools
import logging
import math
import time

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from swinir.network import fused
from swinir.network.blocks import SwinBlock
from swinir.network.swinir import SwinIR
from swinir.network.windows import window_orders
from swinir.settings import Precision

log = logging.getLogger(__name__)

# Minimum PSNR of a network in bfloat16 against itself in float32, in dB, at which `auto` takes bfloat16. Tiles must
# agree within 80 dB: the errors of two passes add up (3 dB), and images may be harder than the test images (3 dB).
MIN_DB = 86.0
# bfloat16 must be quicker than float32 by this factor; some processors run both equally fast.
MIN_SPEED = 1.1
_ROUNDS = 5


def choose_autocast(device: torch.device, precision: Precision) -> torch.dtype:
    """Return the dtype for `torch.autocast` on a device: on a CPU always float32, its blocks have their own precision.

    On a GPU bfloat16 where it is supported; never float16, because SwinIR's activations overflow float16 and whole
    tiles turn black (SwinIR issues 103 and 180).
    """
    if device.type != "cuda" or precision == "float32":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32


def set_block_precision(network: SwinIR, name: str, precision: Precision) -> None:
    """Set the precision of a network's fused blocks on a CPU, and log it if it is bfloat16.

    `auto` takes bfloat16 if this processor is quicker with it, and if the network's outputs for test images stay within
    MIN_DB of those in float32.
    """
    if precision == "float32" or not fused.is_available():
        return
    if not fused.has_bfloat16():
        if precision == "bfloat16":
            log.warning("%s runs in float32: this processor has no bfloat16 (AVX512-BF16)", name)
        return
    distance_db = measure_bfloat16(network)
    if precision == "bfloat16" or (distance_db >= MIN_DB and _is_quicker()):
        network.set_fused_precision(torch.bfloat16)
        log.info("%s runs its blocks in bfloat16: %.1f dB from float32", name, distance_db)


@torch.inference_mode()
def measure_bfloat16(network: SwinIR) -> float:
    """Return the PSNR in dB between a network's outputs in float32 and bfloat16, for the worse of the test images.

    Leaves the blocks in float32. Infinite if they are equal; NaN if one output is not finite.
    """
    images = make_test_images(network.in_chans)
    outputs = []
    for precision in (torch.bfloat16, torch.float32):
        network.set_fused_precision(precision)
        outputs.append(network(images).double())
    error = (outputs[0] - outputs[1]).square().mean(dim=(1, 2, 3)).max().item()
    return -10 * math.log10(error) if error else math.inf


def make_test_images(channels: int) -> Tensor:
    """Return [2, channels, 64, 64] in 0..1, hard for the variants that the zoo has.

    The first has squares of colours, noise, thin lines and a gradient, the second the blocks of a strong JPEG.
    """
    generator = torch.Generator().manual_seed(0)
    squares = _enlarge(torch.rand(1, channels, 8, 8, generator=generator), 8)
    squares[..., 32:, :32] = torch.rand(1, channels, 32, 32, generator=generator)
    squares[..., ::4, 32:] = 0.0
    squares[..., 32:, 32:] = torch.linspace(0, 1, 32).expand(1, channels, 32, 32)
    smooth = interpolate(torch.rand(1, channels, 8, 8, generator=generator), size=(64, 64), mode="bicubic")
    means = _enlarge(avg_pool2d(smooth, 8), 8)
    steps = 0.06 * _enlarge(torch.randn(1, channels, 8, 8, generator=generator), 8)
    return torch.cat([squares, (means + 0.5 * (smooth - means) + steps).clamp(0, 1)])


def _enlarge(images: Tensor, factor: int) -> Tensor:
    return images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


@functools.cache
def _is_quicker() -> bool:
    """Return whether a block of the published medium size runs quicker in bfloat16 here: the best of some rounds."""
    block = SwinBlock(180, 6, 8, 2.0, shifted=False).eval()
    orders = window_orders(1, 32, 32, 8, torch.device("cpu"))
    tokens = torch.zeros(32 * 32, 180)
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    packed = {precision: fused.FusedBlock(block, precision) for precision in best}
    for _ in range(_ROUNDS):
        for precision, each in packed.items():
            started = time.thread_time()
            each.run(tokens, orders.gather["image", "plain"], orders.kinds["plain"], threads=1)
            best[precision] = min(best[precision], time.thread_time() - started)
    return best[torch.float32] >= MIN_SPEED * best[torch.bfloat16]
