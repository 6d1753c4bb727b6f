"""A gateway with a remote real Triton that sleeps and wakes, as on Knative, or restarts, as under Compose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from werkzeug.test import TestResponse

from gateway.access.api_keys import ApiKeyStore
from gateway.app import create_app
from gateway.backend import remote
from gateway.backend.embedded import make_backend
from gateway.backend.interface import Backend
from gateway.backend.triton_process import TritonPorts, TritonProcess
from gateway.config.environment import read_settings
from testing.data import ROOT
from testing.ports import find_free_ports
from testing.requests import post_image, read_image
from testing.stack import wait_for
from testing.triton_activator import TcpActivator

MODEL_KEY = "model-key-of-a-sleeper"


@pytest.fixture(autouse=True)
def every_wait_is_a_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton boots in less than a second on a fast CPU, which counts as no boot outside of these tests."""
    monkeypatch.setattr(remote, "MIN_BOOT_S", 0.0)


def start_triton(folder: Path, ports: TritonPorts) -> TritonProcess:
    return TritonProcess(
        model_repository=ROOT / "model_repository",
        model_key=MODEL_KEY,
        api_key="api-key-of-a-sleeper",
        log_path=folder / "triton.log",
        environ={"OMP_WAIT_POLICY": "passive"},
        ports=ports,
    )


@pytest.fixture
def activator(tmp_path: Path) -> Iterator[TcpActivator]:
    running = TcpActivator(lambda: start_triton(tmp_path, TritonPorts(*find_free_ports(3))))
    yield running
    running.close()


def backend_at(address: str, state_dir: Path) -> tuple[Backend, Callable[[], TestResponse]]:
    """Return a gateway with the Triton at this address, and a function that requests an upscale."""
    environ = {
        "SUPERRES_STATE_DIR": str(state_dir),
        "SUPERRES_BACKEND_ADDRESS": address,
        "SUPERRES_MODEL_KEY": MODEL_KEY,
        "SUPERRES_CACHE_MAX_BYTES": "0",
    }
    backend = make_backend(settings := read_settings(environ).settings)
    client, key = create_app(settings, backend).test_client(), ApiKeyStore(state_dir / "keys.json").new("tests")
    return backend, lambda: post_image(client, key)


def test_images_wake_triton_before_and_after_scaling_to_zero(activator: TcpActivator, tmp_path: Path) -> None:
    backend, ask = backend_at(activator.address, tmp_path)
    try:
        assert (backend.state_tracker.current().name, activator.boots) == ("asleep", 0), "nobody asked for anything"
        first = ask()
        assert (first.status_code, backend.state_tracker.current().name, activator.boots) == (200, "up", 1)
        assert backend.state_tracker.current().usual_boot_s is not None

        activator.put_to_sleep()  # without notice to the gateway
        second = ask()
    finally:
        backend.close()

    assert (second.status_code, activator.boots) == (200, 2), second.get_data(as_text=True)
    assert np.array_equal(read_image(second.data), read_image(first.data))


def test_image_survives_a_restart_of_triton(tmp_path: Path) -> None:
    ports = TritonPorts(*find_free_ports(3))
    old = start_triton(tmp_path, ports)
    backend, ask = backend_at(old.grpc_address, tmp_path)
    servers = [old]
    try:
        first = ask()  # requested during the boot
        assert first.status_code == 200, first.get_data(as_text=True)
        old.kill()
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(ask)
            wait_for(lambda: backend.state_tracker.current().name == "booting", "the gateway to see that it is gone")
            servers.append(start_triton(tmp_path, ports))
            response = second.result()
    finally:
        backend.close()
        for server in servers:
            server.kill()

    assert response.status_code == 200, response.get_data(as_text=True)
    assert np.array_equal(read_image(response.data), read_image(first.data))
    assert backend.state_tracker.current().usual_boot_s is not None
