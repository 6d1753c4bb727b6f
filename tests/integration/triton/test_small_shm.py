"""A real Triton that cannot send a response although /dev/shm had space before: the client must get an error."""

from __future__ import annotations

import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tritonclient.grpc as grpc_client

from gateway.backend.triton_process import TritonPorts, TritonProcess
from gateway.backend.triton_stubs import find_stubs
from testing.data import ROOT
from testing.images import draw_photo
from testing.ports import find_free_ports
from testing.triton import BOOT_LIMIT_S, TritonServer
from testing.triton_clients import upscale


def test_unsendable_response_ends_the_stub(tmp_path: Path) -> None:
    """Otherwise the process would report healthy while every later large image waits without end."""
    process = TritonProcess(
        model_repository=ROOT / "model_repository",
        model_key="model-key-of-the-tests",
        api_key="api-key-of-the-tests",
        log_path=tmp_path / "triton.log",
        environ={"OMP_WAIT_POLICY": "passive"},
        ports=TritonPorts(*find_free_ports(3)),
    )
    try:
        process.wait_until_ready(time.monotonic() + BOOT_LIMIT_S)
        server = TritonServer(process, "model-key-of-the-tests", "api-key-of-the-tests")
        for stub in find_stubs(process.pid):
            if stub.model == "swinir":
                # Its files may not grow: like a full /dev/shm, but invisible to `free_shm_bytes`.
                resource.prlimit(stub.pid, resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
        assert upscale(server, draw_photo(140, 140)).shape == (560, 560, 3)

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(upscale, server, draw_photo(256, 256))
            deadline = time.monotonic() + BOOT_LIMIT_S
            while not process.find_fault():
                assert time.monotonic() < deadline, "nobody notices"
                assert not waiting.done()
                time.sleep(0.05)
            process.stop()
            with pytest.raises(grpc_client.InferenceServerException):
                waiting.result()

        log = process.log_path.read_text(errors="replace")
        assert "a response could not be sent" in log
        assert "Failed to increase the shared memory pool size" in log
    finally:
        process.stop()
