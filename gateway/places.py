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

from gateway.stop import Stop

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
        self._queue: deque[Ticket] = deque()
        self._usual_s = usual_s
        """Seconds a job takes: a moving average of those seen, a guess before the first."""

    def state(self) -> State:
        """Return how full the places are now."""
        with self._lock:
            waiting = len(self._queue)
            full = self._at_work >= self._most_at_work and waiting >= self._most_waiting
            return State(self._at_work, waiting, full, self._estimate_s())

    def enter(self) -> Ticket:
        """Take a place, or the last one in the queue; raises NoPlace at once when the queue is full.

        Whoever enters must leave.
        """
        with self._lock:
            ticket = Ticket(self)
            if self._at_work < self._most_at_work:
                self._at_work += 1
                ticket.begin(self._clock())
            elif len(self._queue) >= self._most_waiting:
                raise NoPlace(len(self._queue), self._estimate_s())
            else:
                self._queue.append(ticket)
            return ticket

    def turn_of(self, ticket: Ticket) -> tuple[int, int]:
        """Return (place in the queue from 1, images at work or waiting before it); (0, 0) once it has its place."""
        with self._lock:
            if ticket not in self._queue:
                return 0, 0
            waiting_before = self._queue.index(ticket)
            return waiting_before + 1, self._at_work + waiting_before

    def leave(self, ticket: Ticket) -> None:
        """Give the place up, or the wait for it."""
        with self._lock:
            if ticket in self._queue:
                self._queue.remove(ticket)
                return
            seconds = self._clock() - ticket.began
            self._usual_s += _WEIGHT_OF_LATEST * (seconds - self._usual_s)
            if self._queue:
                self._queue.popleft().begin(self._clock())  # to the first in the queue, never back to the crowd
            else:
                self._at_work -= 1

    @contextmanager
    def take(self, deadline: float) -> Iterator[None]:
        """Hold a place for the body of a `with`, waiting for it until `deadline`, a moment of the clock.

        Raises NoPlace at once when the queue is full, WaitedTooLong at the deadline.
        """
        ticket = self.enter()
        try:
            ticket.wait(max(0.0, deadline - self._clock()), Stop())
            yield
        finally:
            self.leave(ticket)

    def _estimate_s(self) -> float:
        """Return when the first of those waiting now will have a place, at the usual pace."""
        return self._usual_s / self._most_at_work


class Ticket:
    """A place, or a place in the queue."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._turn = threading.Event()
        self.began = 0.0
        """When the work began, a moment of the clock."""

    @property
    def turn(self) -> tuple[int, int]:
        """(place in the queue from 1, images at work or waiting before this one); (0, 0) once it has its place."""
        return self._places.turn_of(self)

    def begin(self, now: float) -> None:
        """Note that the turn has come; called by `Places`."""
        self.began = now
        self._turn.set()

    def wait(self, timeout_s: float, stop: Stop) -> None:
        """Return when the turn has come; raise WaitedTooLong or Stopped."""
        with stop.calling(self._turn.set):  # woken by either
            came = self._turn.wait(timeout_s)
        stop.check()
        if not came:
            raise WaitedTooLong

    def leave(self) -> None:
        """Give the place up, or the wait for it."""
        self._places.leave(self)
