"""Triton's own clients on the embedded server's ports: their work keeps it awake, and their requests wake it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from gateway.backend.embedded import READY_LIMIT_S, EmbeddedBackend
from gateway.backend.triton_counters import read_counters
from gateway.backend.triton_process import TritonProcess
from gateway.config.settings import Settings
from testing.images import draw_photo
from testing.ports import find_free_port
from testing.stack import wait_for
from testing.triton_clients import TIMEOUT_S, upscale_request

KEY = "key-of-the-tests"
IDLE_S = 3.0
GRPC_HEADERS = {"triton-grpc-protocol-model-key": KEY}


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[EmbeddedBackend]:
    settings = Settings(
        state_dir=str(tmp_path),
        model_key=KEY,
        scale_to_zero_after_s=IDLE_S,
        triton_grpc_port=find_free_port(),
        triton_http_port=find_free_port(),
    )
    running = EmbeddedBackend(settings)
    running.start()
    try:
        running.wait_until_ready(time.monotonic() + READY_LIMIT_S)
        yield running
    finally:
        running.close()


def current(backend: EmbeddedBackend) -> TritonProcess:
    process = backend.process
    assert process is not None
    return process


def ask_grpc(client: Any, side: int = 8) -> tuple[int, ...]:
    inputs = upscale_request(grpc_client, draw_photo(side, side))
    result = client.infer("upscale", inputs, headers=GRPC_HEADERS, client_timeout=TIMEOUT_S)
    return tuple(result.as_numpy("UPSCALED").shape)


def ask_http(client: Any) -> tuple[int, ...]:
    inputs = upscale_request(http_client, draw_photo(8, 8))
    return tuple(client.infer("upscale", inputs, headers={"model-key": KEY}).as_numpy("UPSCALED").shape)


def wait_until_asleep(backend: EmbeddedBackend) -> None:
    wait_for(lambda: backend.state_tracker.current().name == "asleep", "the server to sleep")


def test_work_of_triton_clients_keeps_the_server_awake_and_wakes_it(backend: EmbeddedBackend) -> None:
    settings, process = backend._settings, current(backend)
    with (
        grpc_client.InferenceServerClient(f"127.0.0.1:{settings.triton_grpc_port}") as grpc_port,
        http_client.InferenceServerClient(
            f"127.0.0.1:{settings.triton_http_port}", network_timeout=TIMEOUT_S, connection_timeout=TIMEOUT_S
        ) as http_port,
        grpc_client.InferenceServerClient(process.grpc_address) as past_the_gateway,
    ):
        # Work that the gateway does not see, known from Triton's counters; and one image that takes a while.
        assert ask_http(http_port) == (32, 32, 3)
        before = read_counters(process.ports.metrics)
        end = time.monotonic() + 1.5 * IDLE_S
        while time.monotonic() < end:
            ask_grpc(past_the_gateway)
        assert backend.process is process
        assert ask_grpc(grpc_port, side=250) == (1000, 1000, 3)
        assert backend.process is process
        assert read_counters(process.ports.metrics).has_moved_since(before)

        # Idle connections do not keep it awake, and a channel without a call does not wake it. A call does.
        wait_until_asleep(backend)
        assert not process.is_ready()
        with grpc_client.InferenceServerClient(f"127.0.0.1:{settings.triton_grpc_port}"):
            assert backend.state_tracker.current().name == "asleep"
        assert ask_grpc(grpc_port) == (32, 32, 3)
        assert current(backend).pid != process.pid
        wait_until_asleep(backend)
        assert ask_http(http_port) == (32, 32, 3)

        # Idle clients, HTTP ones too, do not delay the end: SIGTERM is enough.
        last = current(backend)
        backend.close()
        assert last._process.returncode == 0, "0 after SIGTERM within its time, otherwise 1 or -9"
