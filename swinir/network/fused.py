"""The fused Swin block: `fused_block.c`, compiled on the machine it runs on, and the weights in its layout.

`make setup` compiles it if there is a C compiler; in an installed package ``python -m swinir.network.fused`` does.
Without a compiled file for this processor, blocks run in PyTorch and give the same image. Serving never compiles.
Before its first use the library has to agree with PyTorch on a small block.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from swinir.network.attention import PlainSwinBlock
from swinir.network.windows import KINDS, window_orders

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("fused_block.c")
HEADER = Path(__file__).with_name("fused_bfloat16.h")
COMPILED = Path(__file__).parent / "compiled"
# Second choice, in the home folder: the folder of an installed package may be read-only.
CACHE = Path(".cache/serverless-superres")
# -march=native: the file is for this processor only; its name has a hash of it. No -ffast-math: NaN must stay NaN.
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-std=c11", "-shared", "-fPIC", "-pthread")
# Columns of a panel of weights, as in fused_block.c.
PANEL = 16
# Length of the array of zeros in `attend` of fused_block.c; longer heads run in PyTorch.
MAX_HEAD_DIM = 1024
# Added to the scores of padding tokens, so that their exponential is zero.
PADDING_SCORE = -1e30
# Maximum difference from PyTorch, relative to the largest magnitude, at which the library is used.
TOLERANCE = 1e-5
# The same for products in bfloat16, whose values have 8 bits: 0.002 on the block of `_measure_error`.
BFLOAT16_TOLERANCE = 0.01
_enabled = True


class CompileError(Exception):
    """The fused block could not be compiled; the message says why."""


class _Block(ctypes.Structure):
    _numbers = ("dim", "heads", "head_dim", "window_tokens", "hidden", "in_bfloat16")
    _tensors = tuple(
        f"{layer}_{kind}" for layer in ("norm1", "norm2", "qkv", "proj", "fc1", "fc2") for kind in ("weight", "bias")
    )
    _fields_ = (
        *((name, ctypes.c_int64) for name in _numbers),
        *((name, ctypes.c_void_p) for name in _tensors),
    )


class _Kind(ctypes.Structure):
    _fields_ = (("first", ctypes.c_int64), ("end", ctypes.c_int64), ("bias", ctypes.c_void_p))


class FusedBlock:
    """One Swin block with its weights packed for the compiled library.

    With ``precision`` torch.bfloat16 its products are in bfloat16, summed in float32; only if `has_bfloat16` and
    `fits_bfloat16`.
    """

    def __init__(self, block: PlainSwinBlock, precision: torch.dtype = torch.float32) -> None:
        attention = block.attn
        dim, heads, window_tokens = attention.proj.in_features, attention.num_heads, attention.window_size**2
        scale = torch.ones(3 * dim, 1)
        scale[:dim] = attention.head_dim**-0.5  # of the scores, moved into the query
        pack = _pack_pairs if precision == torch.bfloat16 else _pack
        self._tensors = {
            "norm1_weight": _pad(block.norm1.weight),
            "norm1_bias": _pad(block.norm1.bias),
            "norm2_weight": _pad(block.norm2.weight),
            "norm2_bias": _pad(block.norm2.bias),
            "qkv_weight": pack(attention.qkv.weight * scale),
            "qkv_bias": _pad(attention.qkv.bias * scale[:, 0]),
            "proj_weight": pack(attention.proj.weight),
            "proj_bias": _pad(attention.proj.bias),
            "fc1_weight": pack(block.mlp.fc1.weight),
            "fc1_bias": _pad(block.mlp.fc1.bias),
            "fc2_weight": pack(block.mlp.fc2.weight),
            "fc2_bias": _pad(block.mlp.fc2.bias),
        }
        self._biases = {
            kind: _pad(attention.make_bias(kind), PADDING_SCORE) for kind in (KINDS if block.shifted else KINDS[:1])
        }
        pointers = {name: tensor.data_ptr() for name, tensor in self._tensors.items()}
        self._window_tokens = window_tokens
        self._block = _Block(
            dim=dim,
            heads=heads,
            head_dim=attention.head_dim,
            window_tokens=window_tokens,
            hidden=block.mlp.fc1.out_features,
            in_bfloat16=precision == torch.bfloat16,
            **pointers,
        )

    @property
    def size_bytes(self) -> int:
        """Memory of the packed weights, without the parameters they were packed from."""
        return sum(tensor.nbytes for tensor in (*self._tensors.values(), *self._biases.values()))

    def run(self, tokens: Tensor, gather: Tensor, kinds: Sequence[tuple[int, int, int]], threads: int) -> Tensor:
        """Return what `SwinBlock.forward` returns, for float32 tokens [B*H*W, C] on a CPU.

        Raises MemoryError when the buffers of a window cannot be allocated.
        """
        library = load_library()
        tokens = tokens.contiguous()
        out = torch.empty_like(tokens)
        area = self._window_tokens
        rows = [_Kind(a // area, b // area, self._biases[kind].data_ptr()) for kind, a, b in kinds]
        failed = library.run_swin_block(
            ctypes.byref(self._block),
            (_Kind * len(rows))(*rows),
            len(rows),
            tokens.data_ptr(),
            gather.data_ptr(),
            out.data_ptr(),
            threads,
        )
        if failed:
            raise MemoryError("not enough memory for the buffers of a window")
        return out


def is_available() -> bool:
    """Return whether blocks may run fused in this process."""
    return _enabled and find_library() is not None


def fits_bfloat16(block: PlainSwinBlock) -> bool:
    """Return whether the products of a block come in pairs, as bfloat16 needs them."""
    attention = block.attn
    return not any(size % 2 for size in (attention.proj.in_features, attention.head_dim, block.mlp.fc1.out_features))


@functools.cache
def has_bfloat16() -> bool:
    """Return whether the library has products in bfloat16 that agree with PyTorch; found once per process."""
    library = find_library()
    if library is None or not library.has_bfloat16():
        return False
    error = _measure_error(torch.bfloat16)
    if not error <= BFLOAT16_TOLERANCE:
        log.warning("blocks run in float32: the fused block in bfloat16 differs from it by %.1e", error)
        return False
    return True


@contextmanager
def disabled() -> Iterator[None]:
    """Run every block in PyTorch, to measure or test both ways."""
    global _enabled  # noqa: PLW0603 - one switch per process
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def compile_library() -> Path:
    """Compile the block for this processor, unless that was done, and return the file. Raises CompileError."""
    path = library_path()
    if path.exists():
        return path
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise CompileError("no C compiler found (cc, gcc or clang)")
    errors = []
    for folder in _folders():
        try:
            return _compile_into(folder, compiler)
        except OSError as error:
            errors.append(f"{folder} cannot be written: {error.strerror}")
    raise CompileError("; ".join(errors))


def _compile_into(folder: Path, compiler: str) -> Path:
    path = folder / library_path().name
    partial = path.with_suffix(f".{os.getpid()}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    partial.touch()  # raises OSError if the folder is read-only; the compiler would print its own message
    finished = subprocess.run(  # noqa: S603 - our own source and flags
        [compiler, *FLAGS, f"-I{HEADER.parent}", str(SOURCE), "-o", str(partial), "-lm"],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        partial.unlink(missing_ok=True)
        raise CompileError(f"{compiler} failed to compile {SOURCE.name}: {finished.stderr.strip()[:500]}")
    for old in folder.glob("fused_block-*.so"):
        old.unlink(missing_ok=True)
    partial.replace(path)
    return path


def library_path() -> Path:
    """Return the path of the library for this source, these flags and this processor, compiled or not."""
    code = SOURCE.read_bytes() + HEADER.read_bytes()
    name = hashlib.sha256(code + " ".join(FLAGS).encode() + _processor()).hexdigest()[:16]
    paths = [folder / f"fused_block-{name}.so" for folder in _folders()]
    return next((path for path in paths if path.exists()), paths[0])


def _folders() -> list[Path]:
    """Return where a compiled library may be, first choice first."""
    try:
        # Not $HOME: Triton's models run without it.
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a container's user without an entry in /etc/passwd
        return [COMPILED]
    return [COMPILED, home / CACHE]


@functools.cache
def load_library() -> ctypes.CDLL:
    """Load the compiled library; raises OSError when it is not there."""
    library = ctypes.CDLL(str(library_path()))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.run_swin_block.argtypes = [pointer, pointer, number, pointer, pointer, pointer, number]
    library.run_swin_block.restype = ctypes.c_int
    library.has_bfloat16.restype = ctypes.c_int
    return library


@functools.cache
def find_library() -> ctypes.CDLL | None:
    """Return the library if it is compiled and agrees with PyTorch, else None; searched once per process."""
    try:
        library = load_library()
    except OSError:
        log.warning(
            "blocks run in PyTorch, about half as fast: the fused block is not compiled for this processor. "
            "To compile it, run: python -m swinir.network.fused"
        )
        return None
    error = _measure_error()
    if not error <= TOLERANCE:
        log.warning("blocks run in PyTorch: the fused block differs from it by %.1e. Delete %s", error, library_path())
        return None
    return library


@torch.no_grad()
def _measure_error(precision: torch.dtype = torch.float32) -> float:
    """Return the largest difference between library and PyTorch on a small block, relative to the largest magnitude."""
    generator = torch.Generator().manual_seed(0)
    block = PlainSwinBlock(20, 2, 8, 2.0, shifted=True)
    for parameter in block.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    orders = window_orders(1, 24, 16, 8, torch.device("cpu"))
    tokens = torch.randn(24 * 16, 20, generator=generator)
    gather, kinds = orders.gather["plain", "shifted"], orders.kinds["shifted"]
    expected = block.run_plain(tokens.index_select(0, gather), kinds)
    actual = FusedBlock(block, precision).run(tokens, gather, kinds, threads=2)
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def _pad(tensor: Tensor, value: float = 0.0) -> Tensor:
    """Pad the last dimension to a multiple of PANEL."""
    return F.pad(tensor.detach().float(), (0, -tensor.shape[-1] % PANEL), value=value).contiguous()


def _pack(weight: Tensor) -> Tensor:
    """Return [outputs, inputs] as panels [outputs / PANEL, inputs, PANEL], padded with zeros."""
    columns = _pad(weight.t())
    return columns.view(len(columns), -1, PANEL).permute(1, 0, 2).contiguous()


def _pack_pairs(weight: Tensor) -> Tensor:
    """Return [outputs, inputs] in bfloat16 as panels [outputs / PANEL, inputs / 2, PANEL, 2], padded with zeros."""
    rows = F.pad(weight.detach().float(), (0, 0, 0, -weight.shape[0] % PANEL))
    return rows.view(-1, PANEL, weight.shape[1] // 2, 2).transpose(1, 2).bfloat16().contiguous()


def _processor() -> bytes:
    """Return the facts that decide which instructions the compiler may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return "\n".join([platform.machine(), platform.system(), *facts]).encode()


def main() -> None:
    """Compile the library, or print why not. A failure is not an error, because the engine also runs in PyTorch."""
    try:
        print(f"the engine's fused block: {compile_library()}")  # noqa: T201 - this is a command
    except CompileError as error:
        print(f"the engine runs in PyTorch, about half as fast on a CPU: {error}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
