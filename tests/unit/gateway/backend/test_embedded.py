"""The embedded backend with a simulated server that fails; tests/integration/triton uses a real one."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gateway import problems
from gateway.backend import embedded
from gateway.backend.embedded import MAX_FAILED_BOOTS, EmbeddedBackend
from gateway.backend.interface import (
    BackendDiedError,
    BackendError,
    BackendFaultError,
    BackendNotStartedError,
    BackendStillBootingError,
    BackendUnavailableError,
)
from gateway.backend.triton_install import EmbeddedServerError
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


def backend_of(state_dir: Path, error: BackendError, faults: list[str]) -> EmbeddedBackend:
    """A backend that sees these states of its server's process in turn; the last one permanently."""
    backend = EmbeddedBackend(Settings(state_dir=str(state_dir)))
    looks = iter(faults)
    process: Any = SimpleNamespace(find_fault=lambda: next(looks, faults[-1]))
    client: Any = Failing(error)
    backend._process, backend._client = process, client
    return backend


def ask(backend: EmbeddedBackend) -> None:
    list(
        backend.upscale_bands(PIXELS, "x", deadline=time.monotonic() + 60, request_id="id", cancel_token=CancelToken())
    )


def test_a_server_that_closed_its_socket_and_is_seen_to_have_ended_later_has_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "DEATH_GRACE_S", 60.0)
    backend = backend_of(
        tmp_path, BackendUnavailableError("Socket closed"), ["", "", "tritonserver ended with status -9"]
    )

    with pytest.raises(BackendDiedError):
        ask(backend)
    assert backend._client is None, "nobody else gets it"


def test_a_server_that_is_alive_after_all_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "DEATH_GRACE_S", 0.1)
    backend = backend_of(tmp_path, BackendUnavailableError("Socket closed"), [""])

    with pytest.raises(BackendUnavailableError):
        ask(backend)
    assert backend._client is not None


def test_a_fault_of_a_server_that_is_alive_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "DEATH_GRACE_S", 60.0)
    backend = backend_of(tmp_path, BackendFaultError("INTERNAL: no"), [""])
    began = time.monotonic()

    with pytest.raises(BackendFaultError, match="INTERNAL"):
        ask(backend)
    assert time.monotonic() - began < embedded.DEATH_GRACE_S / 2


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("not enough values\nmore"), "not enough values"),
        (ValueError(), "ValueError"),
        (OSError("disk"), "disk"),
    ],
)
def test_whatever_keeps_the_server_from_starting_is_told_and_the_next_who_asks_has_it_tried_again(
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
                backend.wait_until_ready(time.monotonic() + 10)
        assert len(starts) == seen + embedded.MAX_FAILED_BOOTS
    finally:
        backend.close()


def test_a_request_whose_boots_fail_is_told_so_after_as_many_as_are_tried_and_has_no_more_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_boot_that_the_deadline_overtakes_is_slow_and_has_not_failed(tmp_path: Path) -> None:
    backend = EmbeddedBackend(Settings(state_dir=str(tmp_path)))

    with pytest.raises(BackendStillBootingError):
        backend.wait_until_ready(time.monotonic())
