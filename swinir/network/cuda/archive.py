"""The archives of compiled kernels, and their launches on a GPU. Needs no Triton language."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.cuda import _utils as torch_driver  # loads and starts compiled kernels; torch has no public name for it

from swinir.network.cuda.shapes import KERNELS, BlockShape, Program

COMPILED = Path(__file__).parents[1] / "compiled"
MANIFEST = "manifest.json"
# Compute capabilities with bfloat16. 8.0 also runs on 8.6 and 8.7, 8.9 is that of Ada. 7.5 has none: the engine runs in
# float32 there.
CAPABILITIES = (80, 89, 90, 100, 120)
_SOURCES = ("kernels.py", "shapes.py", "compile.py")


class KernelsUnavailableError(Exception):
    """The kernels cannot be used; the message says why."""


def archive_path(capability: int) -> Path:
    """Return the path of the archive for a compute capability, as in 90 for 9.0, compiled or not.

    Its name has a hash of the sources, so that an archive of another version is not found.
    """
    here = Path(__file__).parent
    version = hashlib.sha256(b"".join((here / name).read_bytes() for name in _SOURCES)).hexdigest()[:16]
    return COMPILED / f"block_kernels-{capability}-{version}.zip"


def runs_on(compiled_for: int, capability: int) -> bool:
    """Return whether a GPU runs kernels that were compiled for some compute capability.

    Code for 8.0 runs on every 8.x. From 9.0 on it is for one compute capability only.
    """
    return compiled_for == capability or (compiled_for <= capability and capability // 10 == compiled_for // 10 == 8)


def find_archive(capability: int) -> tuple[int, Path]:
    """Return the compute capability and path of the archive that a GPU can run; raises KernelsUnavailableError."""
    for candidate in reversed(CAPABILITIES):
        path = archive_path(candidate)
        if runs_on(candidate, capability) and path.exists():
            return candidate, path
    raise KernelsUnavailableError(
        f"no kernels are compiled for compute capability {capability / 10}; "
        "to compile them, run: python -m swinir.network.cuda.compile"
    )


class CompiledKernels:
    """The kernels of one `BlockShape` on the current GPU: the `Launch` of `KernelBlock`."""

    def __init__(self, shape: BlockShape, capability: int, device: torch.device) -> None:
        """Load them for a GPU and its compute capability; raises KernelsUnavailableError."""
        compiled_for, path = find_archive(capability)
        self._programs: dict[str, Program] = {kernel: shape.program(kernel, compiled_for) for kernel in KERNELS}
        try:
            with zipfile.ZipFile(path) as archive:
                manifest = json.loads(archive.read(MANIFEST))
                files = {kernel: shape.file_name(kernel) for kernel in KERNELS}
                if missing := [name for name in files.values() if name not in manifest]:
                    raise KernelsUnavailableError(f"{path.name} has no kernels for {shape}: {missing[0]} is missing")
                self._kernels = {kernel: _load(kernel, archive.read(name)) for kernel, name in files.items()}
        except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
            raise KernelsUnavailableError(f"{path.name} cannot be loaded: {error}") from error
        self._shared_bytes = {kernel: int(manifest[name]["shared_bytes"]) for kernel, name in files.items()}
        for kernel, n_bytes in self._shared_bytes.items():
            self._kernels[kernel].set_shared_memory_config(n_bytes)
        self._scratch = torch.empty(0, device=device)  # the address 0: no kernel asks for scratch memory

    def __call__(self, kernel: str, grid: tuple[int, int], *arguments: Tensor | int) -> None:
        """Start a kernel on the current stream. Triton adds two addresses of scratch memory to its arguments."""
        self._kernels[kernel](
            grid=(*grid, 1),
            block=(32 * self._programs[kernel].warps, 1, 1),
            args=[*arguments, self._scratch, self._scratch],
            shared_mem=self._shared_bytes[kernel],
        )

    def rows(self, kernel: str) -> int:
        """Return the rows of tokens that one program of a kernel computes."""
        return self._programs[kernel].constants["ROWS"]


def _load(kernel: str, code: bytes) -> Any:
    kernels: Any = torch_driver._cuda_load_module(code, [kernel])  # noqa: SLF001 - see the import
    return kernels[kernel]
