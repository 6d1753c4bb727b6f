"""What every test may use: the project's root, test pictures, and one real Triton a session."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from gateway.backend.triton_process import TritonProcess, find_free_ports
from swinir.streaming import MOST_IN_FLIGHT, SUB_BATCH_S
from tests.stack.running import Stack, start_stack, stop_stack

# Before torch starts its threads: waiting threads that spin cost 10x on a machine that does something else as well.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Where these are set pytest explains unequal bytes by difflib: two unequal pictures of 1.2 MB take hours, not seconds.
for name in ("CI", "BUILD_NUMBER"):
    os.environ.pop(name, None)

# The same examples in each run, and no test of how quick a machine is: a commit is refused for what it did.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

ROOT = Path(__file__).resolve().parent.parent
SET5 = ROOT / "tests" / "data" / "Set5"
SET5_NAMES = ("baby", "bird", "butterfly", "head", "woman")
BOOT_LIMIT_S = 120.0


@dataclass(frozen=True)
class TritonServer:
    """The real server with the shipped models, and the keys it was started with."""

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


@pytest.fixture(scope="session")
def triton_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """One real tritonserver on free loopback ports, with model_repository/ as shipped."""
    process = TritonProcess(
        model_repository=ROOT / "model_repository",
        model_key="model-key-of-the-tests",
        api_key="api-key-of-the-tests",
        log_path=tmp_path_factory.mktemp("triton") / "triton.log",
        environ={"OMP_WAIT_POLICY": "passive"},
        ports=find_free_ports(),
    )
    try:
        process.wait_until_ready(time.monotonic() + BOOT_LIMIT_S)  # its failure prints the server's log
        yield TritonServer(process, "model-key-of-the-tests", "api-key-of-the-tests")
        assert not process.find_fault(), f"{process.find_fault()}\n{process.log_tail()}"
    finally:
        process.stop()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One running service a session, always awake; at its end it must have stopped cleanly."""
    running = start_stack(tmp_path_factory.mktemp("stack"), SUPERRES_SCALE_TO_ZERO_AFTER_S="0")
    try:
        yield running
    finally:
        code = stop_stack(running)
    assert code == 0, f"superres serve ended with {code}:\n{running.log()}"


def read_pixels(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture as uint8 [H, W, 3]."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def set5_pair(name: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return (the x4 input, the reference) of a Set5 picture, the reference cropped to 4x the input."""
    given, reference = read_pixels(SET5 / "x4" / f"{name}.png"), read_pixels(SET5 / "HR" / f"{name}.png")
    return given, reference[: given.shape[0] * 4, : given.shape[1] * 4]


def levels_apart(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> int:
    """Return the largest difference of two pictures of one shape, in levels."""
    assert a.shape == b.shape, f"{a.shape} against {b.shape}"
    return int(np.abs(a.astype(np.int16) - b.astype(np.int16)).max())


def tiles_in_flight(tile_s: float) -> int:
    """Return how many tiles of one picture may be under way where one takes that long: what a Stop cannot call back."""
    return MOST_IN_FLIGHT * math.ceil(SUB_BATCH_S / tile_s)
