"""Fixtures that tests of several folders use: the application, the real server, Triton, the whole stack, Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway.access.api_keys import ApiKeyStore
from gateway.app import create_app
from gateway.backend.triton_process import TritonPorts, TritonProcess
from gateway.config.settings import Settings
from gateway.services import services
from testing.backend import FakeBackend
from testing.clock import ManualClock
from testing.data import ROOT
from testing.ports import find_free_ports
from testing.redis_server import RedisServer, raise_timeouts
from testing.requests import FORM_SECRET
from testing.server import Served, serving
from testing.stack import Stack, start_stack, stop_stack
from testing.triton import BOOT_LIMIT_S, TritonServer

MakeApp = Callable[..., Flask]


@pytest.fixture
def upscaler() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make_app(tmp_path: Path, upscaler: FakeBackend) -> Iterator[MakeApp]:
    """Return a factory of applications that takes settings by name, and `upscaler` and `clock`.

    The result cache is off unless a test sets it, because most tests count calls of the backend. Afterwards the
    applications deliver no more webhooks: an attempt minutes later would appear in the log of another test.
    """
    made: list[Flask] = []

    def make(**changes: object) -> Flask:
        backend = changes.pop("upscaler", upscaler)
        clock = changes.pop("clock", time.monotonic)
        # Flask's test client never closes a response, so each request counts as running permanently.
        usual = {
            "state_dir": str(tmp_path),
            "form_secret": FORM_SECRET,
            "max_concurrent_requests": 1_000,
            "threads": 1_024,
            "small_jobs_per_slot": 1,  # the images of most tests are small
        }
        settings = Settings(**{"cache_max_bytes": 0, **usual, **changes})  # type: ignore[arg-type]
        made.append(create_app(settings, backend, clock=clock))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for app in made:
        services(app).webhook_deliveries.close()


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def key(tmp_path: Path) -> str:
    """An API key of the test's application."""
    return ApiKeyStore(tmp_path / "keys.json").new("tests")


SMALL = {"SUPERRES_MAX_UPLOAD_BYTES": "300000", "SUPERRES_THREADS": "12", "SUPERRES_QUEUE_SIZE": "2"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with small limits and default timeouts, which no test reaches."""
    with serving(tmp_path_factory.mktemp("served"), **SMALL) as server:
        yield server


@pytest.fixture(scope="module")
def short_timeouts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with small limits and short timeouts: 1 s idle, 2 s for a body."""
    with serving(
        tmp_path_factory.mktemp("impatient"), SUPERRES_IDLE_TIMEOUT_S="1", SUPERRES_BODY_TIMEOUT_S="2", **SMALL
    ) as server:
        yield server


@pytest.fixture(scope="session")
def triton_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """One real tritonserver on free loopback ports, with model_repository/ as shipped."""
    process = TritonProcess(
        model_repository=ROOT / "model_repository",
        model_key="model-key-of-the-tests",
        api_key="api-key-of-the-tests",
        log_path=tmp_path_factory.mktemp("triton") / "triton.log",
        environ={"OMP_WAIT_POLICY": "passive"},
        ports=TritonPorts(*find_free_ports(3)),
    )
    try:
        process.wait_until_ready(time.monotonic() + BOOT_LIMIT_S)  # a failure includes the server's log
        yield TritonServer(process, "model-key-of-the-tests", "api-key-of-the-tests")
        assert not process.find_fault(), f"{process.find_fault()}\n{process.log_tail()}"
    finally:
        process.stop()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One running service per session that never sleeps; fails if it does not stop cleanly."""
    running = start_stack(tmp_path_factory.mktemp("stack"), SUPERRES_SCALE_TO_ZERO_AFTER_S="0")
    try:
        yield running
    finally:
        code = stop_stack(running)
    assert code == 0, f"superres serve ended with {code}:\n{running.log()}"


@pytest.fixture(autouse=True)
def _long_redis_timeouts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Raise the gateway's timeouts for Redis in the tests that start one, unless they are marked to wait for them.

    Does not use the fixture `monkeypatch`: that would set it up, and undo it, outside the fixtures of every test.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("redis") and not request.node.get_closest_marker("redis_timeouts"):
            raise_timeouts(patch.setattr)
        yield


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server for one test."""
    server = RedisServer(tmp_path)
    try:
        yield server
    finally:
        server.kill()
