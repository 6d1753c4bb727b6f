"""The remote backend: the state that it infers of a server that wakes and sleeps by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from gateway.backend.interface import (
    BackendDiedError,
    BackendError,
    BackendFaultError,
    BackendNotStartedError,
    BackendStillBootingError,
    BackendTimeoutError,
    BackendUnavailableError,
    Band,
)
from gateway.backend.remote import RemoteBackend, make_remote_backend
from gateway.backend.state import BOOT_LIMIT_S, BackendStateTracker
from gateway.backend.triton_client import TritonClient
from gateway.cancellation import CancelledError, CancelToken
from gateway.config.settings import Settings
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import JobRunner
from preprocessing.codec import Pixels
from testing.backend import FakeBackend
from testing.clock import ManualClock
from testing.jobs import upscale_request

LIMIT_S = 120.0
PIXELS = np.zeros((8, 8, 3), np.uint8)


class Activator(FakeBackend):
    """A proxy in front of a sleeping server: it holds a readiness request until the server is ready."""

    def __init__(self, *, failures: list[Exception] | None = None) -> None:
        super().__init__(failures=failures or [])
        self.is_up = threading.Event()
        self.questions = threading.Semaphore(0)
        self.readiness_calls = 0
        self.broken: BackendError | None = None

    def wait_until_ready(self, deadline: float, cancel_token: CancelToken) -> None:
        self.readiness_calls += 1
        self.questions.release()
        if time.monotonic() > deadline:
            raise BackendTimeoutError("still booting")
        if self.broken:
            raise self.broken
        while not self.is_up.wait(0.005):
            cancel_token.raise_if_cancelled()
            if time.monotonic() > deadline:
                raise BackendTimeoutError("still booting")


def external(activator: Activator, states: BackendStateTracker | None = None) -> RemoteBackend:
    return RemoteBackend(cast("TritonClient", activator), states or BackendStateTracker())


def ask(backend: RemoteBackend, limit_s: float = LIMIT_S, cancel_token: CancelToken | None = None) -> list[Band]:
    bands: Iterator[Band] = backend.upscale_bands(
        PIXELS,
        "compact_x4",
        deadline=time.monotonic() + limit_s,
        request_id="id",
        cancel_token=cancel_token or CancelToken(),
    )
    return list(bands)


def wait_for(states: BackendStateTracker, name: str) -> None:
    end = time.monotonic() + LIMIT_S
    while states.current().name != name:
        assert time.monotonic() < end, f"it never upscaled to {name}"
        time.sleep(0.005)


def whole(bands: list[Band]) -> Pixels:
    return np.concatenate([band.pixels for band in bands])


def test_first_request_wakes_the_server_once() -> None:
    clock, activator = ManualClock(), Activator()
    backend = external(activator, BackendStateTracker(clock=clock))
    assert backend.state_tracker.current().name == "asleep"
    asking = threading.Thread(target=ask, args=(backend,))
    asking.start()
    assert activator.questions.acquire(timeout=LIMIT_S)
    assert backend.state_tracker.current().name == "booting"

    clock.now += 7
    activator.is_up.set()
    asking.join(LIMIT_S)

    assert backend.state_tracker.current().name == "up"
    assert backend.state_tracker.current().usual_boot_s == (7, 7)
    assert whole(ask(backend)).shape == (32, 32, 3)
    assert activator.readiness_calls == 1, "asking is waking: never without need"


def test_idle_backend_sends_no_calls() -> None:
    activator = Activator()
    backend = external(activator)
    assert (backend.state_tracker.current().name, activator.readiness_calls, activator.calls) == ("asleep", 0, [])


def test_repeated_wake_calls_the_server_once() -> None:
    activator = Activator()
    backend = external(activator)

    for _ in range(5):
        backend.wake()
    assert activator.questions.acquire(timeout=LIMIT_S)
    assert backend.state_tracker.current().name == "booting"
    activator.is_up.set()
    wait_for(backend.state_tracker, "up")

    assert activator.readiness_calls == 1


def test_slow_boot_has_not_failed() -> None:
    backend = external(Activator())
    with pytest.raises(BackendStillBootingError):
        ask(backend, limit_s=0.02)
    assert backend.state_tracker.current().name == "booting"


def test_failed_boot_is_reported_and_retried() -> None:
    activator = Activator()
    activator.broken = BackendNotStartedError("not ready")
    backend = external(activator)
    with pytest.raises(BackendNotStartedError):
        ask(backend)
    assert backend.state_tracker.current().name == "failed"

    activator.broken = None
    activator.is_up.set()
    assert len(ask(backend)) == 2
    assert backend.state_tracker.current().name == "up"


@contextmanager
def asking(backend: RemoteBackend, activator: Activator) -> Iterator[Future[list[Band]]]:
    """Call a closed port, like a Triton that has not loaded its models; run the block after two attempts."""
    activator.broken = BackendUnavailableError("connection refused")
    while activator.questions.acquire(blocking=False):
        pass  # the earlier ones
    cancel_token = CancelToken()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, backend, LIMIT_S, cancel_token)
        try:
            for _ in range(2):
                assert activator.questions.acquire(timeout=LIMIT_S)
            yield waiting
        finally:
            cancel_token.cancel()


def begin_to_listen(activator: Activator) -> None:
    activator.broken = None
    activator.is_up.set()


def test_closed_port_means_booting_and_is_retried() -> None:
    clock, activator = ManualClock(), Activator()
    backend = external(activator, BackendStateTracker(clock=clock))
    with asking(backend, activator) as waiting:
        clock.now += 9
        assert not waiting.done()
        assert backend.state_tracker.current().name == "booting"
        begin_to_listen(activator)
        assert whole(waiting.result(LIMIT_S)).shape == (32, 32, 3)
    assert backend.state_tracker.current().name == "up"
    assert backend.state_tracker.current().usual_boot_s == (9, 9), "it was watched from its beginning to its end"


def test_wait_for_a_closed_port_ends_at_the_deadline() -> None:
    activator = Activator()
    activator.broken = BackendUnavailableError("connection refused")
    backend = external(activator)
    with pytest.raises(BackendStillBootingError):
        ask(backend, limit_s=0.02)
    assert backend.state_tracker.current().name == "booting"

    begin_to_listen(activator)
    assert len(ask(backend)) == 2
    assert backend.state_tracker.current().name == "up"
    assert backend.state_tracker.current().usual_boot_s is None, (
        "the boot's end was not observed: the time to the next request is not a boot"
    )


def test_cancel_ends_the_wait_for_a_closed_port() -> None:
    activator = Activator()
    backend = external(activator)
    with asking(backend, activator) as waiting:
        pass  # and is cancelled
    with pytest.raises(CancelledError):
        waiting.result(LIMIT_S)


def test_port_that_stays_closed_means_failed() -> None:
    clock, activator = ManualClock(), Activator()
    backend = external(activator, BackendStateTracker(clock=clock))

    with asking(backend, activator) as waiting:
        clock.now += BOOT_LIMIT_S
        assert backend.state_tracker.current().name == "booting"
        clock.now += 1
        with pytest.raises(BackendNotStartedError, match="could not be reached for longer than a boot may take"):
            waiting.result(LIMIT_S)
    assert backend.state_tracker.current().name == "failed"
    before = activator.readiness_calls
    with pytest.raises(BackendNotStartedError, match="could not be reached for longer than a boot may take"):
        ask(backend)
    assert activator.readiness_calls == before + 1, "it had all its time: nobody else waits for it"
    assert backend.state_tracker.current().name == "failed", "else each request to a dead server would count a boot"

    begin_to_listen(activator)
    assert len(ask(backend)) == 2
    backend.state_tracker.mark_asleep()
    with asking(backend, activator):
        assert backend.state_tracker.current().name == "booting"


def test_cancel_during_the_boot_ends_the_wait() -> None:
    activator, cancel_token = Activator(), CancelToken()
    backend = external(activator)
    threading.Timer(0.02, cancel_token.cancel).start()
    with pytest.raises(CancelledError):
        ask(backend, cancel_token=cancel_token)
    assert activator.calls == [], "the image was never sent"


def test_readiness_is_checked_again_after_idle_time(tmp_path: Path) -> None:
    clock, activator = ManualClock(), Activator()
    activator.is_up.set()
    backend = external(activator, BackendStateTracker(tmp_path / "boots.json", assume_asleep_after_s=60, clock=clock))
    ask(backend)
    clock.now += 61

    assert backend.state_tracker.current().name == "asleep"
    ask(backend)

    assert activator.readiness_calls == 2


def test_state_is_up_while_an_image_gets_no_band() -> None:
    clock, activator = ManualClock(), Activator()
    activator.is_up.set()
    backend = external(activator, BackendStateTracker(assume_asleep_after_s=45, clock=clock))
    bands = backend.upscale_bands(
        PIXELS, "compact_x4", deadline=time.monotonic() + LIMIT_S, request_id="id", cancel_token=CancelToken()
    )
    next(bands)
    clock.now += 100
    assert backend.state_tracker.current().name == "up"
    assert len(list(bands)) == 1


def test_readiness_is_checked_again_after_a_lost_server() -> None:
    activator = Activator(failures=[BackendUnavailableError("gone")])
    activator.is_up.set()
    backend = external(activator)
    with pytest.raises(BackendDiedError):
        ask(backend)
    assert backend.state_tracker.current().name == "asleep"
    assert len(ask(backend)) == 2
    assert activator.readiness_calls == 2


def test_image_of_a_lost_server_is_retried_on_the_next() -> None:
    activator = Activator(failures=[BackendUnavailableError("gone")])
    activator.is_up.set()
    making = JobRunner(external(activator), JobQueue(Capacity(running=1, waiting=0)), deadline_s=LIMIT_S)
    assert making.run(upscale_request(), "id").width == 4 * upscale_request().upload.width
    assert activator.readiness_calls == 2


def test_image_waits_until_a_server_with_a_dead_stub_is_replaced() -> None:
    dead: list[Exception] = [BackendFaultError("Stub process 'swinir_0_0' is not healthy.")] * 2
    activator = Activator(failures=dead)
    activator.is_up.set()
    backend = external(activator)
    assert len(ask(backend)) == 2
    names = [name for name, _ in backend.state_tracker.recent_states()]
    assert names == ["asleep", "booting", "up", *["failed", "booting"] * 2, "up"]
    assert len(activator.calls) == 3


def test_calls_without_a_band_mean_failed_until_a_band_arrives() -> None:
    clock = ManualClock()
    activator = Activator(failures=[BackendTimeoutError("silent")])
    activator.is_up.set()
    backend = external(activator, BackendStateTracker(hang_after_s=30, clock=clock))
    backend.state_tracker.mark_up()
    backend.state_tracker.mark_silent(0)
    clock.now += 30

    with pytest.raises(BackendTimeoutError):
        ask(backend)
    state = backend.state_tracker.current()
    assert (state.name, state.reason) == ("failed", "The backend has not responded to any image for 30 s.")

    assert len(ask(backend)) == 2
    assert (backend.state_tracker.current().name, backend.state_tracker.current().reason) == ("up", "")
    assert activator.readiness_calls == 1, "a failure needs a readiness call first"


def test_instant_readiness_of_a_remote_server_is_no_boot(tmp_path: Path) -> None:
    backend = make_remote_backend(Settings(backend_address="127.0.0.1:1", state_dir=str(tmp_path)))
    backend.state_tracker.begin_boot()
    backend.state_tracker.mark_up()
    assert backend.state_tracker.current().usual_boot_s is None
    backend.close()
