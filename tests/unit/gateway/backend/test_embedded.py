"""The embedded backend with a simulated server that fails; tests/integration/triton uses a real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gateway import problems
from gateway.backend import embedded, hang_watch
from gateway.backend.embedded import MAX_FAILED_BOOTS, EmbeddedBackend
from gateway.backend.interface import (
    BackendDiedError,
    BackendError,
    BackendFaultError,
    BackendHungError,
    BackendNotStartedError,
    BackendStillBootingError,
    BackendUnavailableError,
)
from gateway.backend.triton_install import EmbeddedServerError
from gateway.backend.triton_process import TritonPorts
from gateway.cancellation import CancelToken
from gateway.config.settings import Settings
from gateway.jobs.options import make_request, parse_options
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import JobRunner
from testing.requests import PHOTO

PIXELS = np.zeros((8, 8, 3), np.uint8)


class Failing:
    """A client whose every call fails."""

    def __init__(self, error: BackendError) -> None:
        self.error = error

    def upscale_bands(self, *_: Any, **__: Any) -> list[Any]:
        raise self.error


def make_failing_backend(state_dir: Path, error: BackendError, faults: list[str]) -> EmbeddedBackend:
    """A backend that sees these states of its server's process in turn; the last one permanently."""
    backend = EmbeddedBackend(Settings(state_dir=str(state_dir)))
    looks = iter(faults)
    process: Any = SimpleNamespace(find_fault=lambda: next(looks, faults[-1]))
    client: Any = Failing(error)
    backend._process, backend._client = process, client
    return backend


def ask(backend: EmbeddedBackend) -> None:
    list(
        backend.upscale_bands(PIXELS, "x", deadline=time.monotonic() + 120, request_id="id", cancel_token=CancelToken())
    )


def test_closed_socket_before_the_exit_means_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hang_watch, "DEATH_GRACE_S", 60.0)
    backend = make_failing_backend(
        tmp_path, BackendUnavailableError("Socket closed"), ["", "", "tritonserver ended with status -9"]
    )

    with pytest.raises(BackendDiedError):
        ask(backend)
    assert backend._client is None, "nobody else gets it"


def test_live_server_that_fails_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hang_watch, "DEATH_GRACE_S", 0.1)
    backend = make_failing_backend(tmp_path, BackendUnavailableError("Socket closed"), [""])

    with pytest.raises(BackendUnavailableError):
        ask(backend)
    assert backend._client is not None


def test_fault_of_a_live_server_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hang_watch, "DEATH_GRACE_S", 60.0)
    backend = make_failing_backend(tmp_path, BackendFaultError("INTERNAL: no"), [""])
    began = time.monotonic()

    with pytest.raises(BackendFaultError, match="INTERNAL"):
        ask(backend)
    assert time.monotonic() - began < hang_watch.DEATH_GRACE_S / 2


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("not enough values\nmore"), "not enough values"),
        (ValueError(), "ValueError"),
        (OSError("disk"), "disk"),
    ],
)
def test_failed_start_is_reported_and_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    starts: list[None] = []

    def start(**_: Any) -> None:
        starts.append(None)
        raise error

    monkeypatch.setattr(embedded, "TritonProcess", start)
    backend = EmbeddedBackend(Settings(state_dir=str(tmp_path)))
    backend.start()
    try:
        for _ in range(2):
            seen = len(starts)
            with pytest.raises(BackendNotStartedError, match=rf"^Triton did not start: {words}$"):
                backend.wait_until_ready(time.monotonic() + 120)
        assert len(starts) == seen + embedded.MAX_FAILED_BOOTS
    finally:
        backend.close()


def test_request_fails_after_the_maximum_of_boots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boots = []

    def boot(_: EmbeddedBackend) -> None:
        boots.append(1)
        raise EmbeddedServerError("a model cannot be loaded")

    monkeypatch.setattr(EmbeddedBackend, "_boot", boot)
    settings = Settings(state_dir=str(tmp_path))
    backend = EmbeddedBackend(settings)
    backend._is_wanted = False  # asleep
    backend.start()
    order = make_request(PHOTO, "photo.png", parse_options({}, settings), settings)

    try:
        with pytest.raises(problems.BackendNotStarted):
            JobRunner(backend, JobQueue(Capacity(running=1, waiting=0)), deadline_s=60).run(order, "id")
    finally:
        backend.close()
    assert len(boots) == MAX_FAILED_BOOTS
    assert backend.state_tracker.current().name == "failed"


def test_boot_past_the_deadline_has_not_failed(tmp_path: Path) -> None:
    backend = EmbeddedBackend(Settings(state_dir=str(tmp_path)))

    with pytest.raises(BackendStillBootingError):
        backend.wait_until_ready(time.monotonic())


class HangingServer:
    """A server that hangs at once, as a client and as a process."""

    pid, grpc_address, ports = 7, "127.0.0.1:1", TritonPorts(1, 1, 1)

    def __init__(self, *_: Any, **__: Any) -> None:
        self.is_closed = threading.Event()

    def wait_until_ready(self, *_: Any) -> None: ...
    def find_end(self) -> str:
        return ""

    def find_fault(self) -> str:
        return ""

    def log_tail(self) -> str:
        return ""

    def kill(self) -> None: ...
    def upscale_bands(self, *_: Any, **__: Any) -> Iterator[Any]:
        assert self.is_closed.wait(120)
        yield from ()
        raise BackendUnavailableError("CANCELLED: Channel closed!")

    def close(self) -> None:
        self.is_closed.set()


class SeenHanging:
    """A watch that sees a hang as soon as a request waits."""

    seconds, has_progressed = 30.0, False

    def __init__(self, _process: Any, _settings: Any, is_awaited: Callable[[], bool]) -> None:
        self.check = lambda _counters: "it hangs" if is_awaited() else ""


def test_backend_that_hangs_after_each_boot_fails_until_the_next_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WATCH_INTERVAL_S", 0.005)
    monkeypatch.setattr(embedded, "TritonProcess", HangingServer)
    monkeypatch.setattr(embedded, "TritonClient", HangingServer)
    monkeypatch.setattr(embedded, "HangWatch", SeenHanging)
    always_due = SimpleNamespace(is_due=lambda: True, is_in_use=lambda: True, counters=None)
    monkeypatch.setattr(embedded, "ServerActivity", lambda *_: always_due)
    backend = EmbeddedBackend(Settings(state_dir=str(tmp_path)))
    backend.start()
    try:
        for _ in range(2):
            for is_replaced in (True, True, False):
                with pytest.raises(BackendHungError) as raised:
                    ask(backend)
                assert raised.value.is_replaced == is_replaced
            wait_for_failure(backend)
            assert backend.state_tracker.current().reason == "The backend did not respond for 30 s and was ended."
    finally:
        backend.close()


def wait_for_failure(backend: EmbeddedBackend) -> None:
    end = time.monotonic() + 120
    while backend._is_wanted:
        assert time.monotonic() < end, "it did not give up"
        time.sleep(0.005)
    assert backend.state_tracker.current().name == "failed"
