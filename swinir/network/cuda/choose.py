"""Decides whether the blocks of a network on a GPU run as kernels: they must agree with PyTorch and be quicker."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from swinir.network.attention import PlainSwinBlock
from swinir.network.blocks import SwinBlock
from swinir.network.cuda.archive import CompiledKernels, KernelsUnavailableError
from swinir.network.cuda.block import KernelBlock, Launch, shape_of
from swinir.network.cuda.shapes import BlockShape
from swinir.network.swinir import SwinIR
from swinir.network.windows import window_orders

log = logging.getLogger(__name__)

# Root mean square of the difference from float32, relative to that of the result without the block's input. PyTorch's
# autocast has 0.003 and the kernels 0.0025 in Triton's interpreter, for every shape of the zoo.
TOLERANCE = 0.01
# Windows on each side of the image whose block is compared: a shifted one has all four kinds of windows.
COMPARED_WINDOWS = 3
# The same for the block that is timed: 128 x 128 pixels with windows of 8.
TIMED_WINDOWS = 16
_ROUNDS = 5

Find = Callable[[BlockShape, torch.device], Launch]


def find_compiled(shape: BlockShape, device: torch.device) -> Launch:
    """Load the kernels that were compiled for a GPU; raises KernelsUnavailableError."""
    if device.type != "cuda":
        raise KernelsUnavailableError(f"{device} is not a GPU")
    major, minor = torch.cuda.get_device_capability(device)
    return CompiledKernels(shape, 10 * major + minor, device)


def use_kernels(
    network: SwinIR, name: str, find: Find = find_compiled, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Let a network's blocks use the kernels when they run under autocast to bfloat16, or log why they do not.

    The weights are packed now: the blocks do not notice later changes of their parameters.
    """
    blocks = [module for module in network.modules() if isinstance(module, SwinBlock)]
    try:
        launches = {shape: _check(shape, find, blocks[0].norm1.weight.device, clock) for shape in map(shape_of, blocks)}
    except KernelsUnavailableError as error:
        log.warning("the blocks of %s run in PyTorch: %s", name, error)
        return
    with torch.no_grad():
        for block in blocks:
            block.kernels = KernelBlock(block, launches[shape_of(block)])
    log.info("the blocks of %s run as kernels", name)


@torch.inference_mode()
def _check(shape: BlockShape, find: Find, device: torch.device, clock: Callable[[], float]) -> Launch:
    """Return the launches of a shape after a test; raises KernelsUnavailableError."""
    if not shape.fits:
        raise KernelsUnavailableError(f"{shape} is not a shape that kernels are written for")
    try:
        launch = find(shape, device)
        error = measure_error(shape, launch, device)
        if not error <= TOLERANCE:
            raise KernelsUnavailableError(f"the kernels differ from float32 by {error:.1e}; the maximum is {TOLERANCE}")
        pytorch_s, kernels_s = time_blocks(shape, launch, device, clock)
    except RuntimeError as cause:  # torch's, of CUDA's driver
        raise KernelsUnavailableError(f"the kernels failed: {cause}") from cause
    if not kernels_s < pytorch_s:
        raise KernelsUnavailableError(f"the kernels take {1e3 * kernels_s:.2f} ms, PyTorch {1e3 * pytorch_s:.2f} ms")
    return launch


def measure_error(shape: BlockShape, launch: Launch, device: torch.device) -> float:
    """Return the difference between a shifted block by kernels and in float32, as in TOLERANCE."""
    block, tokens, gather, kinds = _draw_block(shape, COMPARED_WINDOWS, device)
    source = tokens.index_select(0, gather)
    expected = block.run_plain(source, kinds)
    actual = KernelBlock(block, launch).run(tokens, gather, kinds)
    return ((actual - expected).square().mean() / (expected - source).square().mean()).sqrt().item()


def time_blocks(
    shape: BlockShape, launch: Launch, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Return the seconds of a block under autocast in PyTorch and by kernels, the best of some rounds."""
    block, tokens, gather, kinds = _draw_block(shape, TIMED_WINDOWS, device)
    kernels = KernelBlock(block, launch)

    def run_pytorch() -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return block.run_plain(tokens.index_select(0, gather), kinds)

    def run_kernels() -> Tensor:
        return kernels.run(tokens, gather, kinds)

    best = [math.inf, math.inf]
    for number in range(_ROUNDS + 1):
        for index, run in enumerate((run_pytorch, run_kernels)):
            _synchronize(device)
            started = clock()
            run()
            _synchronize(device)
            seconds = clock() - started
            if number:  # the first round loads PyTorch's own kernels
                best[index] = min(best[index], seconds)
    return best[0], best[1]


def _draw_block(
    shape: BlockShape, windows: int, device: torch.device
) -> tuple[PlainSwinBlock, Tensor, Tensor, tuple[tuple[int, int, int], ...]]:
    """Return a shifted block with random weights, tokens [M, C] of a square image, and the order of its windows."""
    generator = torch.Generator().manual_seed(0)
    block = PlainSwinBlock(shape.dim, shape.heads, shape.window, shape.hidden / shape.dim, shifted=True)
    for parameter in block.parameters():
        spread = 0.25 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    side = windows * shape.window
    orders = window_orders(1, side, side, shape.window, device)
    tokens = torch.randn(side * side, shape.dim, generator=generator).to(device)
    return block.to(device), tokens, orders.gather["plain", "shifted"], orders.kinds["shifted"]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
