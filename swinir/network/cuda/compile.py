"""Compiles the kernels of all variants for the GPUs that have bfloat16: `python -m swinir.network.cuda.compile`.

The build of Triton's image runs it, and `make setup` with a CUDA build of torch. It needs the Triton language, which
comes with such a build, but no GPU. Serving needs neither the language nor a compiler: it loads the archives that this
writes, one for each compute capability.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from swinir.network.cuda.archive import CAPABILITIES, MANIFEST, archive_path, runs_on
from swinir.network.cuda.block import ALIGNMENT
from swinir.network.cuda.shapes import KERNELS, BlockShape
from swinir.zoo import VARIANTS

# Iterations of a loop whose weights are loaded ahead. With 3, shared memory exceeds the 99 KB of 8.9 and 12.0.
STAGES = 2
# The types of the arguments that are not constants.
SIGNATURES = {
    "project_qkv": "tokens=*fp32 gather=*i64 weight=*bf16 bias=*fp32 qkv=*bf16 n_rows=i32",
    "attend_windows": "qkv=*bf16 bias=*bf16 attended=*bf16 n_rows=i32 end_0=i32 end_1=i32 end_2=i32",
    "finish_block": "tokens=*fp32 gather=*i64 attended=*bf16 proj_weight=*bf16 proj_bias=*fp32 fc1_weight=*bf16 "
    "fc1_bias=*fp32 fc2_weight=*bf16 fc2_bias=*fp32 out=*fp32 n_rows=i32",
}


class KernelCompileError(Exception):
    """A kernel could not be compiled; the message says which and why."""


def zoo_shapes() -> list[BlockShape]:
    """Return the sizes of all blocks of the zoo that the kernels fit, without duplicates."""
    shapes = {
        BlockShape(config["embed_dim"], heads, config["window_size"], int(config["embed_dim"] * config["mlp_ratio"]))
        for config in (row.config for row in VARIANTS.values())
        for heads in config["num_heads"]
    }
    return sorted((shape for shape in shapes if shape.fits), key=repr)


def compile_kernel(kernel: str, shape: BlockShape, capability: int) -> Any:
    """Return Triton's compiled kernel, with ``asm`` and ``metadata``; raises KernelCompileError."""
    import triton  # noqa: PLC0415 - only where kernels are compiled
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415
    from triton.compiler import ASTSource  # noqa: PLC0415

    from swinir.network.cuda import kernels  # noqa: PLC0415

    program = shape.program(kernel, capability)
    types = dict(each.split("=") for each in SIGNATURES[kernel].split())
    aligned = {
        (place,): [["tt.divisibility", ALIGNMENT]] for place, type_ in enumerate(types.values()) if type_[0] == "*"
    }
    source = ASTSource(
        getattr(kernels, kernel),
        {**types, **dict.fromkeys(program.constants, "constexpr")},
        constexprs=dict(program.constants),
        attrs=aligned,
    )
    options = {"num_warps": program.warps, "num_stages": STAGES}
    with tempfile.TemporaryDirectory() as cache, triton.knobs.cache.scope():
        triton.knobs.cache.dir = cache  # not in the home folder: the archive is what stays
        try:
            return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        except (triton.errors.TritonError, RuntimeError, OSError) as error:
            reason = f"{kernel} of {shape} failed to compile for compute capability {capability / 10}: {error}"
            raise KernelCompileError(reason[:2000]) from error


def compile_archive(capability: int, shapes: Iterable[BlockShape], path: Path) -> None:
    """Compile the kernels of the shapes for one compute capability into an archive."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write_archive(capability, shapes, partial)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    for old in path.parent.glob(f"block_kernels-{capability}-*.zip"):
        old.unlink(missing_ok=True)
    partial.replace(path)


def _write_archive(capability: int, shapes: Iterable[BlockShape], path: Path) -> None:
    manifest = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for shape in shapes:
            for kernel in KERNELS:
                compiled = compile_kernel(kernel, shape, capability)
                metadata = compiled.metadata
                if metadata.global_scratch_size or metadata.profile_scratch_size or metadata.num_ctas != 1:
                    raise RuntimeError(f"{kernel} needs scratch memory or a cluster, which `archive` does not provide")
                name = shape.file_name(kernel)
                archive.writestr(name, compiled.asm["cubin"])
                manifest[name] = {"shared_bytes": metadata.shared, "warps": metadata.num_warps}
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1))


def find_capabilities() -> tuple[int, ...]:
    """Return the compute capability to compile for on this machine, or all of them if it has no GPU."""
    if not torch.cuda.is_available():
        return CAPABILITIES
    major, minor = torch.cuda.get_device_capability()
    return tuple(each for each in CAPABILITIES if runs_on(each, 10 * major + minor))[-1:]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile what is missing, or print why not. A failure is not an error, because the engine also runs in PyTorch."""
    parser = argparse.ArgumentParser(description="Compile the kernels of Swin blocks for GPUs.")
    parser.add_argument(
        "--capability", type=int, action="append", help="such as 90 for 9.0; default: this GPU's, or all"
    )
    options = parser.parse_args(arguments)
    if torch.version.cuda is None and options.capability is None:
        return 0
    if importlib.util.find_spec("triton") is None:
        sys.stderr.write("the blocks of a GPU run in PyTorch: the Triton language is not installed\n")
        return 0
    for capability in options.capability or find_capabilities():
        path = archive_path(capability)
        try:
            if not path.exists():
                compile_archive(capability, zoo_shapes(), path)
        except (KernelCompileError, OSError) as error:
            sys.stderr.write(f"the blocks of a GPU run in PyTorch: {error}\n")
            continue
        sys.stdout.write(f"the kernels of a GPU's blocks: {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
