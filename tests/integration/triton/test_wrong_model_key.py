"""A MODEL_KEY that Triton rejects: the client gets 502, the operator a log line, and no secret leaks."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from gateway.access.api_keys import ApiKeyStore
from gateway.app import create_app
from gateway.backend.embedded import make_backend
from gateway.config.environment import read_settings
from gateway.config.settings import Settings
from testing.requests import post_image, read_problem
from testing.triton import TritonServer

WRONG = "a-model-key-of-yesterday"


def ask(server: TritonServer, state_dir: Path, settings: Settings) -> TestResponse:
    """Request an upscale from a gateway with these settings, with a new API key."""
    assert settings.backend_address == server.grpc_address
    backend = make_backend(settings)
    try:
        return post_image(
            create_app(settings, backend).test_client(), ApiKeyStore(state_dir / "keys.json").new("tests")
        )
    finally:
        backend.close()


def settings_with(server: TritonServer, state_dir: Path, **secret: str) -> Settings:
    environ = {"SUPERRES_STATE_DIR": str(state_dir), "SUPERRES_BACKEND_ADDRESS": server.grpc_address, **secret}
    return read_settings(environ).settings


def test_wrong_model_key_returns_502_and_is_logged(
    triton_server: TritonServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        response = ask(triton_server, tmp_path, settings_with(triton_server, tmp_path, SUPERRES_MODEL_KEY=WRONG))

    assert read_problem(response) == (502, "backend-fault")
    shown = response.get_data(as_text=True) + str(response.headers)
    for hint in (WRONG, triton_server.model_key, "MODEL_KEY", "Triton", "restricted", triton_server.grpc_address):
        assert hint not in shown
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert lines == [f"{response.headers['X-Request-Id']}: BackendMisconfiguredError: Triton rejected MODEL_KEY"]
    assert WRONG not in caplog.text


@pytest.mark.parametrize("order", ["{right},{wrong}", "{wrong},{right}", "{wrong}, {right}"])
@pytest.mark.parametrize("way", ["variable", "file"])
def test_two_model_keys_work_in_either_order(triton_server: TritonServer, tmp_path: Path, order: str, way: str) -> None:
    value = order.format(right=triton_server.model_key, wrong=WRONG)
    (tmp_path / "model-key").write_text(value + "\n")
    secret = (
        {"SUPERRES_MODEL_KEY": value} if way == "variable" else {"SUPERRES_MODEL_KEY_FILE": str(tmp_path / "model-key")}
    )

    response = ask(triton_server, tmp_path, settings_with(triton_server, tmp_path, **secret))

    assert (response.status_code, response.headers["X-Superres-Size"]) == (200, "128x96")
