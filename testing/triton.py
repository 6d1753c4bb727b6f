"""Starts real Triton servers for tests: with other weights or settings, or with injected faults."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from gateway.backend import triton_process
from gateway.backend.triton_process import TritonPorts, TritonProcess
from swinir.streaming import MAX_IN_FLIGHT, SUB_BATCH_S
from testing.data import ROOT
from testing.ports import find_free_ports

FAULTY_ADAPTER = '''"""The shipped adapter, with an engine whose forward pass and load go wrong as a file says."""

import importlib.util
import time
from pathlib import Path

from swinir.errors import InvalidWeightsError
from swinir.inference import network_cache, shared_memory
from swinir.network.compiled_network import CompiledNetwork
from swinir.settings import read_settings

SWITCH = Path({switch!r})
spec = importlib.util.spec_from_file_location("shipped_adapter", {adapter!r})
shipped = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shipped)
real_init = network_cache.NetworkCache.__init__
real_free_shm_bytes = shared_memory.free_shm_bytes


def take_fault(kind):
    """Whether this fault is on; each line of the file is a fault, used up unless it begins with "always "."""
    lines = SWITCH.read_text().splitlines() if SWITCH.exists() else []
    if f"always {{kind}}" in lines:
        return True
    if kind in lines:
        lines.remove(kind)
        SWITCH.write_text("\\n".join(lines))
        return True
    return False


def make_faulty(real_forward, error, last_pixel):
    def forward(*given, **named):
        if take_fault("memory"):
            raise error
        if take_fault("lost GPU"):
            torch_engine.is_context_lost = lambda device: True
            raise RuntimeError("CUDA error: an illegal memory access was encountered (injected)")
        restored = real_forward(*given, **named)
        if take_fault("nan"):
            restored[last_pixel] = float("nan")
        return restored

    return forward


def init(self, weights_dir, max_bytes, load, *more):
    def load_faulty(row, path):
        if take_fault("load"):
            raise InvalidWeightsError(path.name + " cannot be read (injected)")
        time.sleep(0.3 if take_fault("slow load") else 0)
        return load(row, path)

    real_init(self, weights_dir, max_bytes, load_faulty, *more)


def free_shm_bytes():
    return 0 if take_fault("shared memory") else real_free_shm_bytes()


if read_settings().engine == "torch":
    import torch

    from swinir.inference import torch_engine
    from swinir.inference.torch_engine import TorchEngine

    error = torch.OutOfMemoryError("CUDA out of memory (injected)")
    TorchEngine._forward = make_faulty(TorchEngine._forward, error, (-1, 0, 2, 3))
else:
    CompiledNetwork.forward = make_faulty(CompiledNetwork.forward, MemoryError("injected"), (-1, 2, 3, 0))
network_cache.NetworkCache.__init__ = init
shared_memory.SharedMemoryBudget.__init__.__defaults__ = (free_shm_bytes,)


class TritonPythonModel(shipped.TritonPythonModel):
    def execute(self, requests):
        if take_fault("hang"):
            time.sleep(3600)
        large_jobs = self.large_jobs
        if take_fault("no large jobs"):  # as on a GPU
            self.large_jobs = None
        try:
            return super().execute(requests)
        finally:
            self.large_jobs = large_jobs
'''


@contextmanager
def run_server(
    folder: Path,
    *,
    environ: Mapping[str, str],
    model_repository: Path = ROOT / "model_repository",
    options: Sequence[str] = (),
    may_end: bool = False,
) -> Iterator[TritonServer]:
    """Run a real tritonserver on free loopback ports, with further `options`; its log is in `folder`.

    Fails at the end if a process of the server has died, unless it `may_end`.
    """
    real_command = triton_process._command
    with patch.object(triton_process, "_command", lambda *arguments: [*real_command(*arguments), *options]):
        process = TritonProcess(
            model_repository=model_repository,
            model_key="model-key-of-the-tests",
            api_key="api-key-of-the-tests",
            log_path=folder / "triton.log",
            environ={"OMP_WAIT_POLICY": "passive", **environ},
            ports=TritonPorts(*find_free_ports(3)),
        )
    try:
        process.wait_until_ready(time.monotonic() + BOOT_LIMIT_S)
        yield TritonServer(process, "model-key-of-the-tests", "api-key-of-the-tests")
        assert may_end or not process.find_fault(), f"{process.find_fault()}\n{process.log_tail()}"
    finally:
        process.stop()


def lay_out_faulty_repository(folder: Path, switch: Path) -> Path:
    """Copy the shipped models, with an adapter around `swinir` that injects the faults listed in the file `switch`."""
    repository = folder / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("__pycache__"))
    shipped = ROOT / "model_repository" / "swinir" / "1" / "model.py"
    adapter = FAULTY_ADAPTER.format(switch=str(switch), adapter=str(shipped))
    (repository / "swinir" / "1" / "model.py").write_text(adapter)
    return repository


BOOT_LIMIT_S = 120.0


@dataclass(frozen=True)
class TritonServer:
    """A running Triton and the keys that it was started with."""

    process: TritonProcess
    model_key: str
    api_key: str

    @property
    def grpc_address(self) -> str:
        return self.process.grpc_address

    @property
    def http_address(self) -> str:
        return f"127.0.0.1:{self.process.ports.http}"

    @property
    def metrics_address(self) -> str:
        return f"127.0.0.1:{self.process.ports.metrics}"


def tiles_in_flight(tile_s: float) -> int:
    """Return the maximum number of tiles in flight if one takes `tile_s`: cancelling a job does not stop these."""
    return MAX_IN_FLIGHT * math.ceil(SUB_BATCH_S / tile_s)
