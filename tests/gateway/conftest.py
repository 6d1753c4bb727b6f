"""What tests of the gateway share: an application on a fake backend, and a real server of it in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway.access.api_keys import ApiKeyStore
from gateway.app import create_app
from gateway.config.settings import Settings
from tests.conftest import ROOT
from tests.fakes import FakeBackend, ManualClock
from tests.gateway.requests import FORM_SECRET

START_LIMIT_S = 30.0
MakeApp = Callable[..., Flask]


@pytest.fixture
def upscaler() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make_app(tmp_path: Path, upscaler: FakeBackend) -> MakeApp:
    """Return a factory: settings by name, `upscaler` and `clock` to replace the usual ones.

    Nothing is cached unless a test asks for it: most count what reaches the backend.
    """

    def make(**changes: object) -> Flask:
        given = changes.pop("upscaler", upscaler)
        clock = changes.pop("clock", time.monotonic)
        # The test client closes no answer, so each request seems open for ever.
        usual = {
            "state_dir": str(tmp_path),
            "form_secret": FORM_SECRET,
            "max_concurrent_requests": 1_000,
            "threads": 1_024,
        }
        settings = Settings(**{"cache_max_bytes": 0, **usual, **changes})  # type: ignore[arg-type]
        return create_app(settings, given, clock=clock)  # type: ignore[arg-type]

    return make


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A key that the application of these tests honours."""
    return ApiKeyStore(tmp_path / "keys.json").new("tests")


@dataclass
class Served:
    """A real gunicorn with the fake backend."""

    process: subprocess.Popen[str]
    port: int
    state_dir: Path
    first_line: str
    front_port: int = 0
    """Of the origin that may show the page in a frame, where there is one."""

    def log(self) -> str:
        return (self.state_dir / "gateway.log").read_text()


@contextmanager
def serving(state_dir: Path, *arguments: str, **variables: str) -> Iterator[Served]:
    """Serve in a process of its own until the block ends; `arguments` go to tests.gateway.serve_fake."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SUPERRES_", "PORT"))}
    environ |= {"SUPERRES_STATE_DIR": str(state_dir), "SUPERRES_PORT": "0", "SUPERRES_CACHE_MAX_BYTES": "0"}
    environ |= variables
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.gateway.serve_fake", *arguments],
        cwd=ROOT,
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    limit = threading.Timer(START_LIMIT_S, process.kill)
    limit.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        limit.cancel()
        if "ready at" not in line:
            process.kill()
            raise AssertionError(f"the server did not start: {line!r} {process.communicate()[1]}")
        yield Served(process, int(line.rsplit(":", 1)[1]), state_dir, line)
    finally:
        limit.cancel()
        process.terminate()
        try:
            process.communicate(timeout=START_LIMIT_S)
        finally:
            process.kill()


SMALL = {"SUPERRES_MAX_UPLOAD_BYTES": "300000", "SUPERRES_THREADS": "12", "SUPERRES_QUEUE_SIZE": "2"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A small server with the time-outs of every day, which no test here reaches on any machine."""
    with serving(tmp_path_factory.mktemp("served"), **SMALL) as server:
        yield server


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A small server with short time-outs, for tests of these: 1 s of silence, 2 s for a body."""
    with serving(
        tmp_path_factory.mktemp("hasty"), SUPERRES_IDLE_TIMEOUT_S="1", SUPERRES_BODY_TIMEOUT_S="2", **SMALL
    ) as server:
        yield server
