"""Places: how many images are worked on at once and how many may wait, first come first served.

Everything that costs memory or the backend's time is done while holding a place, so these two numbers bound both.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Clock = Callable[[], float]

_WEIGHT_OF_LATEST = 0.2


class NoPlace(Exception):
    """Every place is taken; `retry_after_s` is an estimate of when one will be free."""

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        super().__init__(f"{waiting} are waiting, which is as many as may.")
        self.waiting = waiting
        self.retry_after_s = retry_after_s


class WaitedTooLong(Exception):
    """The deadline passed before the turn came."""


@dataclass(frozen=True)
class State:
    """How full the places are."""

    at_work: int
    waiting: int
    is_full: bool
    retry_after_s: float
    """When a place may be free, if it is full."""


class Places:
    """A bounded queue in front of a bounded number of jobs. Safe to use from several threads."""

    def __init__(self, at_work: int, waiting: int, *, clock: Clock = time.monotonic, usual_s: float = 5.0) -> None:
        self._most_at_work = at_work
        self._most_waiting = waiting
        self._clock = clock
        self._lock = threading.Lock()
        self._at_work = 0
        self._queue: deque[threading.Event] = deque()
        self._usual_s = usual_s
        """Seconds a job takes: a moving average of those seen, a guess before the first."""

    def state(self) -> State:
        """Return how full the places are now."""
        with self._lock:
            waiting = len(self._queue)
            full = self._at_work >= self._most_at_work and waiting >= self._most_waiting
            return State(self._at_work, waiting, full, self._estimate_s())

    @contextmanager
    def take(self, deadline: float) -> Iterator[None]:
        """Hold a place for the body of a `with`, waiting for it until `deadline`, a moment of the clock.

        Raises NoPlace at once when the queue is full, WaitedTooLong at the deadline.
        """
        self._enter(deadline)
        began = self._clock()
        try:
            yield
        finally:
            self._leave(self._clock() - began)

    def _enter(self, deadline: float) -> None:
        with self._lock:
            if self._at_work < self._most_at_work:
                self._at_work += 1
                return
            if len(self._queue) >= self._most_waiting:
                raise NoPlace(len(self._queue), self._estimate_s())
            turn = threading.Event()
            self._queue.append(turn)
        if turn.wait(max(0.0, deadline - self._clock())):
            return
        with self._lock:
            if turn.is_set():  # the turn came just as the wait ended
                return
            self._queue.remove(turn)
        raise WaitedTooLong

    def _estimate_s(self) -> float:
        """Return when the first of those waiting now will have a place, at the usual pace."""
        return self._usual_s / self._most_at_work

    def _leave(self, seconds: float) -> None:
        with self._lock:
            self._usual_s += _WEIGHT_OF_LATEST * (seconds - self._usual_s)
            if self._queue:
                self._queue.popleft().set()  # the place goes to the first in the queue, never back to the crowd
            else:
                self._at_work -= 1
