"""The C library of the network: its sources compiled on the machine it runs on, found, loaded and checked.

`make setup` compiles it if there is a C compiler; in an installed package ``python -m swinir.network.fused`` does.
Without a compiled file for this processor, networks run in PyTorch and give the same image. Serving never compiles.
Before its first use the library has to agree with `swinir.network.reference` on a small block. Imports no torch.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import pwd
from pathlib import Path

import numpy as np

from swinir.network.packing import PackedBlock, Products
from swinir.network.reference import draw_block_weights, run_block
from swinir.network.window_order import order_windows

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("fused_block.c")
OTHER_SOURCES = tuple(Path(__file__).with_name(name) for name in ("areas.c", "convolution.c", "pixels.c", "way_back.c"))
HEADERS = tuple(
    Path(__file__).with_name(name)
    for name in ("bfloat16.h", "fused_bfloat16.h", "fused_tiles.h", "threads.h", "tiles.h", "vectors.h")
)
COMPILED = Path(__file__).parent / "compiled"
# Second choice, in the home folder: the folder of an installed package may be read-only.
CACHE = Path(".cache/serverless-superres")
# -march=native: the file is for this processor only; its name has a hash of it. No -ffast-math: NaN must stay NaN.
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-std=c11", "-shared", "-fPIC", "-pthread")
# Maximum difference from the reference, relative to the largest magnitude, at which the library is used.
TOLERANCE = 1e-5
# The same for products in bfloat16, whose values have 8 bits: 0.002 on the block of `_measure_error`.
BFLOAT16_TOLERANCE = 0.01


class CompileError(Exception):
    """The fused block could not be compiled; the message says why."""


@functools.cache
def has_bfloat16() -> bool:
    """Return whether the library has products in bfloat16 that agree with the reference; found once per process."""
    library = find_library()
    if library is None or not library.has_bfloat16():
        return False
    error = _measure_error("bfloat16")
    if not error <= BFLOAT16_TOLERANCE:
        log.warning("blocks run in float32: the fused block in bfloat16 differs from it by %.1e", error)
        return False
    return True


def compile_library() -> Path:
    """Compile the block for this processor, unless that was done, and return the file. Raises CompileError."""
    import shutil  # noqa: PLC0415 - and `subprocess`: the engine, which compiles nothing, does without them

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
    import subprocess  # noqa: PLC0415 - see `compile_library`

    path = folder / library_path().name
    partial = path.with_suffix(f".{os.getpid()}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    partial.touch()  # raises OSError if the folder is read-only; the compiler would print its own message
    finished = subprocess.run(  # noqa: S603 - our own source and flags
        [
            compiler,
            *FLAGS,
            f"-I{Path(__file__).parent}",
            *map(str, (SOURCE, *OTHER_SOURCES)),
            "-o",
            str(partial),
            "-lm",
        ],
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
    code = b"".join(path.read_bytes() for path in (SOURCE, *OTHER_SOURCES, *HEADERS))
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
    arguments = {
        "run_swin_block": [pointer, pointer, number, pointer, pointer, pointer, pointer, number],
        "run_convolution": [pointer, *[number] * 5, pointer, pointer, pointer, number],
        "run_layer_norm": [pointer, number, number, pointer, pointer, pointer, number],
        "round_tiles": [pointer, number, number, pointer, pointer, pointer, pointer, number],
        "find_areas": [pointer, *[number] * 3, ctypes.c_float, number, number, pointer, pointer, number],
        "blend_tile": [pointer, pointer, pointer, number, number, number, number, number],
        "measure_way_back": [pointer, pointer, number, number, number, number, pointer, pointer, pointer, number],
        "has_bfloat16": [],
        "has_tiles": [],
    }
    for name, types in arguments.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, ctypes.c_int
    return library


@functools.cache
def find_library() -> ctypes.CDLL | None:
    """Return the library if it is compiled and agrees with the reference, else None; searched once per process."""
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
        log.warning(
            "blocks run in PyTorch: the fused block differs from the reference by %.1e. Delete %s",
            error,
            library_path(),
        )
        return None
    return library


def _measure_error(products: Products = "float32") -> float:
    """Return the largest difference from the reference on a small block, relative to the largest magnitude."""
    weights = draw_block_weights(20, 40, heads=2, window=8)
    images = np.random.default_rng(1).standard_normal((1, 24, 16, 20), np.float32)
    orders = order_windows(1, 24, 16, 8)
    block = PackedBlock(weights, 2, shifted=True, products=products)
    shifted = block.run(
        load_library(), images.reshape(-1, 20), orders.gather["image", "shifted"], orders.kinds["shifted"], threads=2
    )
    actual = shifted[orders.gather["shifted", "image"]].reshape(images.shape)
    expected = run_block(weights, images, 2, 8, shift=4)
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def _processor() -> bytes:
    """Return the facts that decide which instructions the compiler may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return "\n".join([platform.machine(), platform.system(), *facts]).encode()
