"""The specification of gateway.external: what is inferred of a backend that wakes and sleeps by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from gateway.backend import TritonBackend
from gateway.external import ExternalBackend
from gateway.states import States
from gateway.stop import Stop, Stopped
from gateway.upscaler import BackendError, BackendStillBooting, BackendTimeout, BackendUnavailable, Band
from preprocessing.codec import Pixels
from tests.fakes import FakeUpscaler, HandClock

LIMIT_S = 30.0
PIXELS = np.zeros((8, 8, 3), np.uint8)


class Activator(FakeUpscaler):
    """What stands before a sleeping server: holds the question whether it is ready until it is."""

    def __init__(self, *, failures: list[Exception] | None = None) -> None:
        super().__init__(failures=failures or [])
        self.is_up = threading.Event()
        self.questions = threading.Semaphore(0)
        self.asked_ready = 0
        self.broken: BackendError | None = None

    def await_ready(self, deadline: float, stop: Stop) -> None:
        self.asked_ready += 1
        self.questions.release()
        if self.broken:
            raise self.broken
        while not self.is_up.wait(0.005):
            stop.check()
            if time.monotonic() > deadline:
                raise BackendTimeout("still booting")


def external(activator: Activator, states: States | None = None) -> ExternalBackend:
    return ExternalBackend(cast("TritonBackend", activator), states or States())


def ask(backend: ExternalBackend, limit_s: float = LIMIT_S, stop: Stop | None = None) -> list[Band]:
    bands: Iterator[Band] = backend.upscale_bands(
        PIXELS, "compact_x4", deadline=time.monotonic() + limit_s, request_id="id", stop=stop or Stop()
    )
    return list(bands)


def wait_for(states: States, name: str) -> None:
    end = time.monotonic() + LIMIT_S
    while states.now().name != name:
        assert time.monotonic() < end, f"it never became {name}"
        time.sleep(0.005)


def whole(bands: list[Band]) -> Pixels:
    return np.concatenate([band.pixels for band in bands])


def test_a_request_wakes_it_once_and_the_next_goes_straight_through() -> None:
    activator = Activator()
    backend = external(activator)
    assert backend.states.now().name == "asleep"
    asking = threading.Thread(target=ask, args=(backend,))
    asking.start()
    assert activator.questions.acquire(timeout=LIMIT_S)
    assert backend.states.now().name == "booting"

    activator.is_up.set()
    asking.join(LIMIT_S)

    assert backend.states.now().name == "up"
    assert backend.states.now().usual_boot_s is not None
    assert whole(ask(backend)).shape == (32, 32, 3)
    assert activator.asked_ready == 1, "asking is waking: never without need"


def test_nobody_asks_it_anything_while_nobody_wants_anything() -> None:
    activator = Activator()
    backend = external(activator)
    assert (backend.states.now().name, activator.asked_ready, activator.asked) == ("asleep", 0, [])


def test_waking_returns_at_once_and_asks_once_however_often_it_is_called() -> None:
    activator = Activator()
    backend = external(activator)

    for _ in range(5):
        backend.wake()
    assert activator.questions.acquire(timeout=LIMIT_S)
    assert backend.states.now().name == "booting"
    activator.is_up.set()
    wait_for(backend.states, "up")

    assert activator.asked_ready == 1


def test_a_slow_boot_is_no_failed_one() -> None:
    backend = external(Activator())
    with pytest.raises(BackendStillBooting):
        ask(backend, limit_s=0.02)
    assert backend.states.now().name == "booting"


def test_a_boot_that_fails_is_told_and_tried_again_by_the_next() -> None:
    activator = Activator()
    activator.broken = BackendUnavailable("connection refused")
    backend = external(activator)
    with pytest.raises(BackendUnavailable):
        ask(backend)
    assert backend.states.now().name == "failed"

    activator.broken = None
    activator.is_up.set()
    assert len(ask(backend)) == 2
    assert backend.states.now().name == "up"


def test_a_visitor_who_leaves_during_the_boot_ends_the_wait() -> None:
    activator, stop = Activator(), Stop()
    backend = external(activator)
    threading.Timer(0.02, stop.set).start()
    with pytest.raises(Stopped):
        ask(backend, stop=stop)
    assert activator.asked == [], "the image was never sent"


def test_after_its_idle_time_it_is_asked_again_before_an_image_is_sent(tmp_path: Path) -> None:
    clock, activator = HandClock(), Activator()
    activator.is_up.set()
    backend = external(activator, States(tmp_path / "boots.json", presumed_asleep_after_s=60, clock=clock))
    ask(backend)
    clock.now += 61

    assert backend.states.now().name == "asleep"
    ask(backend)

    assert activator.asked_ready == 2


def test_a_server_that_went_away_is_asked_again_by_the_next_request() -> None:
    activator = Activator(failures=[BackendUnavailable("gone")])
    activator.is_up.set()
    backend = external(activator)
    with pytest.raises(BackendUnavailable):
        ask(backend)
    assert backend.states.now().name == "asleep"
    assert len(ask(backend)) == 2
    assert activator.asked_ready == 2
