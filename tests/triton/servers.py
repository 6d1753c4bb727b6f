"""Servers of a test's own: other weights, other settings, a fault that a file switches on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gateway.backend.triton_process import TritonProcess, find_free_ports
from tests.conftest import BOOT_LIMIT_S, ROOT, TritonServer

FAULTY_ADAPTER = '''"""The shipped adapter, with an engine whose forward pass and load go wrong as a file says."""

import importlib.util
import time
from pathlib import Path

import torch

from swinir.inference import engine, memory, network_cache as shelf

SWITCH = Path({switch!r})
spec = importlib.util.spec_from_file_location("shipped_adapter", {adapter!r})
shipped = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shipped)
real_forward, real_load = engine.Engine._forward, shelf.load_network
real_free_shm_bytes = memory.free_shm_bytes


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


def forward(self, network, images, precision):
    if take_fault("memory"):
        raise torch.OutOfMemoryError("CUDA out of memory (injected)")
    restored = real_forward(self, network, images, precision)
    if take_fault("nan"):
        restored[-1, 0, 2, 3] = torch.nan
    return restored


def load(row, path, device):
    if take_fault("load"):
        raise shelf.BadWeights(path.name + " cannot be read (injected)")
    time.sleep(0.3 if take_fault("slow load") else 0)
    return real_load(row, path, device)


def free_shm_bytes():
    return 0 if take_fault("room") else real_free_shm_bytes()


engine.Engine._forward = forward
memory.Room.__init__.__defaults__ = (free_shm_bytes,)
shelf.Shelf.__init__.__defaults__ = (load,)


class TritonPythonModel(shipped.TritonPythonModel):
    def execute(self, requests):
        lane, self.lane = self.lane, None if take_fault("no lane") else self.lane  # none: as on a card
        try:
            return super().execute(requests)
        finally:
            self.lane = lane
'''


@contextmanager
def run_server(
    folder: Path, *, environ: Mapping[str, str], model_repository: Path = ROOT / "model_repository"
) -> Iterator[TritonServer]:
    """One real tritonserver on free loopback ports; its log lies in ``folder``."""
    process = TritonProcess(
        model_repository=model_repository,
        model_key="model-key-of-the-tests",
        api_key="api-key-of-the-tests",
        log_path=folder / "triton.log",
        environ={"OMP_WAIT_POLICY": "passive", **environ},
        ports=find_free_ports(),
    )
    try:
        process.wait_until_ready(time.monotonic() + BOOT_LIMIT_S)
        yield TritonServer(process, "model-key-of-the-tests", "api-key-of-the-tests")
        assert not process.find_fault(), f"{process.find_fault()}\n{process.log_tail()}"
    finally:
        process.stop()


def lay_out_faulty_repository(folder: Path, switch: Path) -> Path:
    """Copy the shipped models, with an adapter around the one of `swinir` that fails as ``switch`` says."""
    repository = folder / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("__pycache__"))
    shipped = ROOT / "model_repository" / "swinir" / "1" / "model.py"
    adapter = FAULTY_ADAPTER.format(switch=str(switch), adapter=str(shipped))
    (repository / "swinir" / "1" / "model.py").write_text(adapter)
    return repository
