"""MODEL_KEY rotates without downtime: the gateway accepts two values, Triton uses the first."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from gateway.backend.interface import BackendMisconfiguredError, Band
from gateway.backend.triton_client import TritonClient
from gateway.cancellation import CancelToken
from testing.data import ROOT
from testing.images import draw_photo
from testing.triton import TritonServer


def upscale(backend: TritonClient) -> list[Band]:
    deadline = time.monotonic() + 120
    return list(
        backend.upscale_bands(
            draw_photo(16, 16), "compact_x4", deadline=deadline, request_id="rotation", cancel_token=CancelToken()
        )
    )


@pytest.mark.parametrize("keys", [["{model_key}"], ["{model_key}", "the-next-one"], ["the-next-one", "{model_key}"]])
def test_either_order_of_two_keys_works(triton_server: TritonServer, keys: list[str]) -> None:
    backend = TritonClient(triton_server.grpc_address, [key.format(model_key=triton_server.model_key) for key in keys])
    try:
        bands = upscale(backend)
    finally:
        backend.close()
    assert sum(band.pixels.shape[0] for band in bands) == 64


def test_two_wrong_keys_are_tried_once_each(triton_server: TritonServer) -> None:
    backend = TritonClient(triton_server.grpc_address, ["neither-this", "nor-that"])
    try:
        with pytest.raises(BackendMisconfiguredError):
            upscale(backend)
    finally:
        backend.close()


def test_triton_starts_with_the_first_of_two_values(tmp_path: Path) -> None:
    """Run the container's start script with a server that only prints its arguments."""
    server = tmp_path / "tritonserver"
    server.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    server.chmod(0o755)
    script = (ROOT / "docker" / "triton" / "start").read_text()
    (tmp_path / "start").write_text(script.replace("/opt/tritonserver/bin/tritonserver", str(server)))
    environ = {"PATH": os.environ["PATH"], "EXIT_TIMEOUT_S": "60"}
    for name in ("MODEL_KEY", "API_KEY"):
        (tmp_path / name).write_text(f"first-{name}-{'x' * 16},second-{name}-{'x' * 16}\n")
        environ[f"{name}_FILE"] = str(tmp_path / name)
    done = subprocess.run(["bash", tmp_path / "start"], env=environ, capture_output=True, text=True, check=True)
    flags = done.stdout.splitlines()
    guards = [flag for flag in flags if "restricted" in flag]
    assert len(guards) == 4
    assert sum(f"model-key=first-MODEL_KEY-{'x' * 16}" in flag for flag in guards) == 2
    assert sum(f"api-key=first-API_KEY-{'x' * 16}" in flag for flag in guards) == 2
    assert "second" not in done.stdout
    assert {"--grpc-address=127.0.0.1", "--http-address=127.0.0.1", "--metrics-address=127.0.0.1"} <= set(flags)
    assert {"--disable-auto-complete-config", "--model-control-mode=none", "--exit-timeout-secs=60"} <= set(flags)
