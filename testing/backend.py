"""A backend without Triton: `FakeBackend` enlarges by repeating pixels and fails or waits as a test asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from gateway.backend.interface import BackendTimeoutError, Band
from gateway.backend.state import BackendStateTracker
from gateway.cancellation import CancelToken
from preprocessing.codec import Pixels
from swinir.zoo import find_variant


class FakeBackend:
    """Enlarges by repeating pixels and returns two bands. Each of the first calls raises one of `failures`.

    With a `gate`, each call waits for it before its first band. Cancelling the call ends the wait.
    """

    def __init__(
        self, *, failures: Sequence[Exception] = (), gate: threading.Event | None = None, work_s: float = 0.0
    ) -> None:
        """`work_s` is the work time that each band reports."""
        self._work_s = work_s
        self._failures = list(failures)
        self._gate = gate
        self.calls: list[tuple[tuple[int, ...], str, str]] = []
        """(shape, variant, request id) of each call."""
        self.arrived = threading.Semaphore(0)
        """Released once per call: a test that acquires it knows that a call waits at the gate."""
        self.is_closed = False
        self.state_tracker = BackendStateTracker()
        self.wakes = 0
        """Number of calls of `wake`."""
        self.stops = 0
        """Number of calls that were cancelled at the gate."""

    def upscale_bands(
        self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
    ) -> Iterator[Band]:
        """Yield every pixel `scale` times on each side: the upper half, then the rest."""
        self.calls.append((pixels.shape, variant, request_id))
        self.arrived.release()
        if self._failures:
            raise self._failures.pop(0)
        if self._gate is not None:
            self._wait(self._gate, deadline, cancel_token)
        self.state_tracker.mark_up()
        for band in cut_in_two(enlarge(pixels, variant)):
            yield replace(band, work_s=self._work_s)

    def wake(self) -> None:
        """Count the call and start a boot that lasts until the next upscale."""
        self.wakes += 1
        self.state_tracker.begin_boot()

    def _wait(self, gate: threading.Event, deadline: float, cancel_token: CancelToken) -> None:
        woken = threading.Event()
        with cancel_token.on_cancel(woken.set):
            while not gate.wait(0.005):
                if woken.is_set():
                    self.stops += 1
                    cancel_token.raise_if_cancelled()
                if time.monotonic() > deadline:
                    raise BackendTimeoutError("the gate stayed shut")

    def close(self) -> None:
        """Record that the backend was closed."""
        self.is_closed = True


def enlarge(pixels: Pixels, variant: str) -> Pixels:
    """Return every pixel `scale` times on each side."""
    scale = find_variant(variant).scale
    return np.repeat(np.repeat(pixels, scale, axis=0), scale, axis=1)


def cut_in_two(pixels: Pixels) -> Iterator[Band]:
    """Yield the upper half and the rest as bands."""
    half = len(pixels) // 2
    if half:
        yield Band(0, pixels[:half])
    yield Band(half, pixels[half:])
