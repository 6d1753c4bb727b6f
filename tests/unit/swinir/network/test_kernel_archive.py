"""The compiled kernels: they fit the GPUs they are compiled for, and are started with the arguments they expect."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from torch import Tensor
from torch.cuda import _utils as torch_driver

from swinir.network.cuda import archive
from swinir.network.cuda import compile as compile_command
from swinir.network.cuda.archive import CAPABILITIES, CompiledKernels, KernelsUnavailableError, find_archive
from swinir.network.cuda.choose import measure_error
from swinir.network.cuda.compile import find_capabilities, zoo_shapes
from swinir.network.cuda.shapes import KERNELS, BlockShape
from testing.data import ROOT
from testing.kernels import InterpretedLaunch

COMPACT = BlockShape(48, 4, 8, 96)
CPU = torch.device("cpu")
# Bytes of shared memory that a program may have, by compute capability (CUDA's programming guide).
MAX_SHARED_BYTES = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}
MAX_REGISTERS = 65536
# Compiles in a process of its own, because here the kernels are interpreted. Prints the parameters of each kernel.
COMPILE = """
import json, pathlib, re, sys
from swinir.network.cuda import archive
from swinir.network.cuda import compile as compile_command
from swinir.network.cuda.shapes import KERNELS, BlockShape
archive.COMPILED = pathlib.Path(sys.argv[1])
if len(sys.argv) > 3:
    compile_command.zoo_shapes = lambda: [BlockShape(48, 4, 8, 96)]
compile_command.main(["--capability", sys.argv[2]])
for kernel in KERNELS:
    ptx = compile_command.compile_kernel(kernel, BlockShape(48, 4, 8, 96), int(sys.argv[2])).asm["ptx"]
    print(json.dumps([kernel, re.findall(r"\\.param \\.(\\w+)[^\\n]*_param_", ptx)]))
"""


def compile_into(folder: Path, capability: int, *more: str) -> dict[str, list[str]]:
    """Compile an archive and return the types of the parameters of each kernel."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(folder), str(capability), *more],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


class StandInKernel:
    """A kernel of a GPU that checks how it is started, and runs in Triton's interpreter."""

    def __init__(self, name: str, parameters: list[str]) -> None:
        self._name = name
        self._parameters = parameters
        self.shared_bytes = -1

    def set_shared_memory_config(self, shared_mem_bytes: int) -> None:
        self.shared_bytes = shared_mem_bytes

    def __call__(
        self, *, grid: tuple[int, int, int], block: tuple[int, int, int], args: list[Any], shared_mem: int
    ) -> None:
        assert block == (32 * COMPACT.program(self._name, 90).warps, 1, 1)
        assert shared_mem == self.shared_bytes
        assert ["u64" if isinstance(each, Tensor) else "u32" for each in args] == self._parameters
        assert all(each.data_ptr() == 0 for each in args[-2:]), "no scratch memory"
        InterpretedLaunch(COMPACT, 90)(self._name, grid[:2], *args[:-2])


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_kernels_fit_every_gpu_with_bfloat16(capability: int, tmp_path: Path) -> None:
    compile_into(tmp_path, capability)

    (path,) = tmp_path.glob("*.zip")
    with zipfile.ZipFile(path) as opened:
        manifest = json.loads(opened.read(archive.MANIFEST))
        opened.extractall(tmp_path)
    assert len(manifest) == len(zoo_shapes()) * len(KERNELS)
    cuobjdump = Path(triton.__path__[0], "backends/nvidia/bin/cuobjdump")
    for name, facts in manifest.items():
        done = subprocess.run([cuobjdump, "-res-usage", tmp_path / name], capture_output=True, text=True, check=True)
        usage = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", done.stdout)}
        assert usage["STACK"] == usage["LOCAL"] == 0, f"{name} spills registers: {usage}"
        assert usage["REG"] * 32 * facts["warps"] <= MAX_REGISTERS, name
        assert facts["shared_bytes"] <= MAX_SHARED_BYTES[capability], name


@pytest.mark.slow
def test_compiled_kernels_are_started_with_their_parameters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parameters = compile_into(tmp_path, 90, "only compact")
    loaded: list[str] = []

    def load(code: bytes, names: list[str]) -> dict[str, StandInKernel]:
        assert code.startswith(b"\x7fELF")
        loaded.extend(names)
        return {name: StandInKernel(name, parameters[name]) for name in names}

    monkeypatch.setattr(archive, "COMPILED", tmp_path)
    monkeypatch.setattr(torch_driver, "_cuda_load_module", load)
    kernels = CompiledKernels(COMPACT, 90, CPU)

    with torch.inference_mode():
        assert measure_error(COMPACT, kernels, CPU) <= 0.003
    assert loaded == list(KERNELS)
    with pytest.raises(KernelsUnavailableError, match=r"has no kernels for BlockShape\(dim=60"):
        CompiledKernels(BlockShape(60, 6, 8, 120), 90, CPU)


def test_torch_has_the_functions_that_start_kernels() -> None:
    """They are private to torch, so an upgrade may change them."""
    assert list(inspect.signature(torch_driver._cuda_load_module).parameters) == ["ptx", "kernel_names"]
    call = inspect.signature(torch_driver._CudaKernel.__call__).parameters
    assert {"grid", "block", "args", "shared_mem"} <= call.keys()
    assert "shared_mem_bytes" in inspect.signature(torch_driver._CudaKernel.set_shared_memory_config).parameters


@pytest.mark.parametrize(
    ("gpu", "compiled", "found"),
    [(90, (80, 90), 90), (86, (80, 89), 80), (89, (80, 89), 89), (89, (80,), 80), (80, (80, 89), 80)],
)
def test_archive_that_the_gpu_can_run_is_found(
    gpu: int, compiled: tuple[int, ...], found: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(archive, "COMPILED", tmp_path)
    for capability in compiled:
        archive.archive_path(capability).touch()
    assert find_archive(gpu) == (found, archive.archive_path(found))


@pytest.mark.parametrize(("gpu", "compiled"), [((8, 6), (80,)), ((9, 0), (90,)), ((7, 5), ()), (None, CAPABILITIES)])
def test_kernels_are_compiled_for_the_gpu_of_the_machine_or_for_all(
    gpu: tuple[int, int] | None, compiled: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)
    assert find_capabilities() == compiled


@pytest.mark.parametrize("gpu", [75, 121, 90])
def test_archive_of_another_generation_is_not_used(gpu: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(archive, "COMPILED", tmp_path)
    for capability in (80, 89, 100, 120):
        archive.archive_path(capability).touch()
    with pytest.raises(KernelsUnavailableError, match=rf"for compute capability {gpu / 10}; to compile them, run"):
        find_archive(gpu)


def test_broken_archive_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(archive, "COMPILED", tmp_path)
    archive.archive_path(90).write_bytes(b"not a zip file")
    with pytest.raises(KernelsUnavailableError, match=r"block_kernels-90-\w+\.zip cannot be loaded: File is not a zip"):
        CompiledKernels(COMPACT, 90, CPU)


def test_kernel_that_fails_to_compile_leaves_no_archive(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise triton.errors.TritonError("ptxas died")

    monkeypatch.setattr(archive, "COMPILED", tmp_path)
    monkeypatch.setattr(triton, "compile", fail)
    monkeypatch.setattr(triton.compiler, "ASTSource", lambda *_, **__: None)

    assert compile_command.main(["--capability", "90", "--capability", "80"]) == 0

    assert not list(tmp_path.iterdir())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "PyTorch: project_qkv of BlockShape(" in lines[0]
    assert lines[0].endswith("failed to compile for compute capability 9.0: ptxas died")


def test_without_the_triton_language_nothing_is_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(archive, "COMPILED", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert compile_command.main(["--capability", "90"]) == 0
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().err == "the blocks of a GPU run in PyTorch: the Triton language is not installed\n"


def test_cpu_build_of_torch_compiles_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(archive, "COMPILED", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert compile_command.main([]) == 0
    assert not list(tmp_path.iterdir())


def test_archive_of_another_version_is_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(archive, "COMPILED", tmp_path)
    for name in ("block_kernels-90-0123.zip", "block_kernels-80-0123.zip"):
        (tmp_path / name).touch()
    path = archive.archive_path(90)
    compile_command.compile_archive(90, [], path)
    assert sorted(tmp_path.iterdir()) == sorted([path, tmp_path / "block_kernels-80-0123.zip"])


def test_engine_on_a_cpu_never_imports_the_triton_language() -> None:
    code = (
        "import sys, numpy; from swinir.inference.torch_engine import TorchEngine; e = TorchEngine(None, 'cpu', 1);"
        "e.restore(numpy.zeros((1, 16, 16, 3), numpy.uint8), 'compact_x4'); assert 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
