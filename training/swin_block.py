"""The Swin block for training on CPUs: `swin_block.c`, compiled at first use, as an autograd function.

In bfloat16 on processors with AMX, in float32 on those with AVX2; docs/how-to/train.md has the speeds. Where the
processor, the compiler or the network does not suit it, `is_available` is false and training runs in PyTorch.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "swin_block.c"
HEADERS = (
    *(FOLDER / name for name in ("swin_sizes.h", "swin_amx.h", "amx.h", "swin_floats.h", "floats.h")),
    FOLDER.parent / "swinir" / "network" / "vectors.h",
)
COMPILED = FOLDER / "build"
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-strict-aliasing", "-std=gnu11")

Products = Literal["bfloat16", "float32"]
# Without AVX2 the block is far slower than PyTorch: GCC splits each vector (2 GFLOP/s instead of 58).
CPU_FLAGS: dict[Products, frozenset[str]] = {
    "bfloat16": frozenset({"amx_tile", "amx_bf16", "avx512_bf16", "avx512bw", "avx512vl"}),
    "float32": frozenset({"avx2", "fma"}),
}
EXTRA_FLAGS: dict[Products, tuple[str, ...]] = {"bfloat16": ("-DSWIN_AMX",), "float32": ()}

# As in swin_sizes.h: embedding, heads, hidden width of the MLP, and the largest window.
DIM, HEADS, HIDDEN, MAX_WINDOW = 48, 4, 96, 8

PARAMETERS = (
    *("norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias"),
    *("norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias"),
)


class _ParameterPointers(ctypes.Structure):
    _fields_ = tuple((name.replace(".", "_"), ctypes.c_void_p) for name in (*PARAMETERS, "position_bias"))


class _TokenShape(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("batch", "height", "width", "window", "shifted"))


def suits(network: Any) -> bool:
    """Whether the sizes of `network`, a SwinIR, are the ones that `swin_block.c` is written for."""
    blocks = [block for layer in network.layers for block in layer.residual_group.blocks]
    sizes = {(b.norm1.normalized_shape[0], b.attn.num_heads, b.mlp.fc1.out_features) for b in blocks}
    return sizes == {(DIM, HEADS, HIDDEN)} and network.window_size <= MAX_WINDOW


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of this processor as Linux names them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(text.partition("\nflags")[2].partition("\n")[0].split())


@functools.cache
def is_available(products: Products) -> bool:
    """Whether this machine can compile and run the block; compiles it on the first call (2 seconds of CPU time)."""
    return cpu_flags() >= CPU_FLAGS[products] and _load(products, MAX_WINDOW) is not None


def run_block(block: Any, tokens: Tensor, position_bias: Tensor, products: Products) -> Tensor:
    """Run one `swinir.network` Swin block: float32 [B, H, W, 48] -> the same shape, differentiable once.

    Matrix products are in `products`, which has to be available. `position_bias` is [heads, N, N] for windows of N
    tokens. H and W must be multiples of the window.
    """
    window = int(block.attn.window_size)
    if tokens.shape[1] % window or tokens.shape[2] % window:
        raise ValueError(f"Height and width {tuple(tokens.shape[1:3])} must be multiples of the window, {window}.")
    parameters = dict(block.named_parameters())
    # apply() is untyped in PyTorch.
    return _TrainedBlock.apply(  # type: ignore[no-untyped-call]
        tokens.float(), products, window, bool(block.shifted), *(parameters[name] for name in PARAMETERS), position_bias
    )


class _TrainedBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        products: Products,
        window: int,
        shifted: bool,  # noqa: FBT001
        *parameters: Tensor,
    ) -> Tensor:
        tokens, parameters = tokens.contiguous(), tuple(parameter.contiguous() for parameter in parameters)
        ctx.products, ctx.shape = products, _TokenShape(*tokens.shape[:3], window, int(shifted))
        ctx.save_for_backward(tokens, *parameters)
        return _run(ctx.products, ctx.shape, tokens, parameters)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, *parameters = ctx.saved_tensors
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        of_tokens = _run(ctx.products, ctx.shape, tokens, parameters, gradient.contiguous(), gradients)
        return (of_tokens, None, None, None, *gradients)


def _run(
    products: Products,
    shape: _TokenShape,
    tokens: Tensor,
    parameters: Any,
    gradient: Tensor | None = None,
    gradients: list[Tensor] | None = None,
) -> Tensor:
    library = _load(products, shape.window)
    if library is None:
        raise RuntimeError("The Swin block for training is not available on this machine; see is_available().")
    out = torch.empty_like(tokens)
    pointers = _ParameterPointers(*(parameter.data_ptr() for parameter in parameters))
    into = _ParameterPointers(*(tensor.data_ptr() for tensor in gradients)) if gradients else None
    failed = library.swin_block_run(
        ctypes.byref(shape),
        ctypes.byref(pointers),
        tokens.data_ptr(),
        None if gradient is None else gradient.data_ptr(),
        None if into is None else ctypes.byref(into),
        out.data_ptr(),
    )
    if failed:
        raise MemoryError("Out of memory for the buffers of a window.")
    return out


@functools.cache
def _load(products: Products, window: int) -> ctypes.CDLL | None:
    path = compile_library(products, window)
    if path is None:
        return None
    library = ctypes.CDLL(str(path))
    library.swin_block_run.argtypes = [ctypes.c_void_p] * 6
    library.swin_block_run.restype = ctypes.c_int
    return None if library.swin_block_prepare() else library


def compile_library(products: Products, window: int) -> Path | None:
    """Compile the block for this processor and a window, unless that is done: the library, or None where gcc fails."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    flags = (*FLAGS, *EXTRA_FLAGS[products], f"-DWINDOW={window}")
    source = b"".join(path.read_bytes() for path in (SOURCE, *HEADERS))
    source += " ".join((compiler, *flags, platform.node())).encode()
    path = COMPILED / f"swin_block-{hashlib.sha256(source).hexdigest()[:16]}.so"
    if path.exists():
        return path
    COMPILED.mkdir(exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    finished = subprocess.run(  # noqa: S603 - our own source and flags
        [compiler, *flags, "-shared", "-fPIC", str(SOURCE), "-o", str(partial)],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        print(f"{compiler} cannot compile {SOURCE.name}; training runs in PyTorch: {finished.stderr[:300]}")
        return None
    partial.replace(path)
    return path
