"""Stops the worker without cutting its clients off: lets running requests finish, then cancels what is left."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Literal

from gateway.wsgi.running_clock import RunningClock

# Seconds to wait, once the requests are cancelled, for their responses (503, with a refund) to be sent.
CANCELLED_RESPONSES_S = 2.0
_POLL_S = 0.05

Order = Literal["finish", "now"]

_log = logging.getLogger(__name__)


class Drain:
    """The end of a worker's requests. `begin` and `end_now` may be called by a signal handler, and more than once."""

    def __init__(self, drain_s: float, *, count_running: Callable[[], int], cancel_all: Callable[[], None]) -> None:
        """Requests may finish for `drain_s`; then `cancel_all` is called. `count_running` counts unsent responses."""
        self.is_draining = False
        """Whether the worker is about to end. New uploads are rejected, and each response closes its connection."""
        self._drain_s = drain_s
        self._count_running = count_running
        self._cancel_all = [cancel_all]
        # A SimpleQueue because its `put` may interrupt itself, as signal handlers do.
        self._orders: SimpleQueue[Order] = SimpleQueue()
        self._clock = RunningClock()

    def start(self, cancel_uploads: Callable[[], None], on_end: Callable[[], None]) -> None:
        """Wait for the order on a thread, carry it out, and call `on_end`.

        `cancel_uploads` ends all waits for request bodies, once the drain is over.
        """
        self._cancel_all.append(cancel_uploads)
        threading.Thread(target=self._run, args=(on_end,), name="drain", daemon=True).start()

    def begin(self) -> None:
        """End when all requests have finished, or after `drain_s`."""
        self.is_draining = True
        self._orders.put("finish")

    def end_now(self) -> None:
        """End without waiting for requests to finish."""
        self.is_draining = True
        self._orders.put("now")

    def cancel_requests(self) -> None:
        """Cancel all requests, and wait until their clients have a response."""
        self.is_draining = True
        for cancel in self._cancel_all:
            cancel()
        end = self._clock() + CANCELLED_RESPONSES_S
        while self._count_running() and self._clock() < end:
            time.sleep(0.01)

    def _run(self, on_end: Callable[[], None]) -> None:
        order = self._orders.get()
        end = self._clock() + self._drain_s
        if (running := self._count_running()) and order == "finish":
            _log.info("stopping: %d requests may finish within %g s", running, self._drain_s)
        while order == "finish" and self._count_running() and self._clock() < end:
            try:
                order = self._orders.get(timeout=_POLL_S)
            except Empty:
                continue
        self.cancel_requests()
        on_end()
