"""A gateway before a real Triton that others put to sleep and wake, as Knative does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.app import create_app
from gateway.embedded import make_backend
from gateway.keys import KeyFile
from gateway.settings import read_settings
from gateway.triton_process import TritonProcess, find_free_ports
from tests.conftest import ROOT
from tests.gateway.requests import ask_api, read_picture
from tests.triton.activator import Activator

MODEL_KEY = "model-key-of-a-sleeper"


@pytest.fixture
def activator(tmp_path: Path) -> Iterator[Activator]:
    def start() -> TritonProcess:
        return TritonProcess(
            model_repository=ROOT / "model_repository",
            model_key=MODEL_KEY,
            api_key="api-key-of-a-sleeper",
            log_path=tmp_path / "triton.log",
            environ={"OMP_WAIT_POLICY": "passive"},
            ports=find_free_ports(),
        )

    running = Activator(start)
    yield running
    running.close()


def test_a_picture_wakes_it_and_another_wakes_it_again_after_it_was_scaled_to_zero(
    activator: Activator, tmp_path: Path
) -> None:
    environ = {
        "SUPERRES_STATE_DIR": str(tmp_path), "SUPERRES_BACKEND_ADDRESS": activator.address,
        "SUPERRES_MODEL_KEY": MODEL_KEY, "SUPERRES_CACHE_MAX_BYTES": "0",
    }  # fmt: skip
    backend = make_backend(settings := read_settings(environ).settings)
    client, key = create_app(settings, backend).test_client(), KeyFile(tmp_path / "keys.json").new("tests")
    try:
        assert (backend.states.now().name, activator.boots) == ("asleep", 0), "nobody asked for anything"
        first = ask_api(client, key)
        assert (first.status_code, backend.states.now().name, activator.boots) == (200, "up", 1)
        assert backend.states.now().usual_boot_s is not None

        activator.put_to_sleep()  # which nobody tells the gateway
        second = ask_api(client, key)
    finally:
        backend.close()

    assert (second.status_code, activator.boots) == (200, 2), second.get_data(as_text=True)
    assert np.array_equal(read_picture(second.data), read_picture(first.data))
