"""Stand-ins for the outside world: a backend without Triton, and a clock that is moved by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from gateway.upscaler import BackendTimeout
from preprocessing.codec import Pixels
from swinir.zoo import find_variant


class FakeUpscaler:
    """Enlarges by repeating pixels. Raises the given failures first, one a call; waits at `gate` where there is one."""

    def __init__(self, *, failures: Sequence[Exception] = (), gate: threading.Event | None = None) -> None:
        self._failures = list(failures)
        self._gate = gate
        self.asked: list[tuple[tuple[int, ...], str, str]] = []
        """(shape, variant, request id) of each call."""
        self.arrived = threading.Semaphore(0)
        """Released once a call: whoever acquires it knows that a call is at the gate."""
        self.is_closed = False

    def upscale(self, pixels: Pixels, variant: str, *, deadline: float, request_id: str) -> Pixels:
        """Return every pixel `scale` times on each side."""
        self.asked.append((pixels.shape, variant, request_id))
        self.arrived.release()
        if self._failures:
            raise self._failures.pop(0)
        if self._gate is not None and not self._gate.wait(max(0.0, deadline - time.monotonic())):
            raise BackendTimeout("the gate stayed shut")
        scale = find_variant(variant).scale
        return np.repeat(np.repeat(pixels, scale, axis=0), scale, axis=1)

    def close(self) -> None:
        """Remember it."""
        self.is_closed = True


class HandClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now
