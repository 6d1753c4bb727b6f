"""Visits: one request of one visitor, what it was charged, and what it gets back when it gets nothing for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Lock

from gateway.access.rate_limits import Charge, RateLimitedClient, RateLimiter, RateLimitStatus
from gateway.config.rates import count_megapixels
from gateway.problems import Problem, QueueFull, TooManyAtOnce, retry_later

AGAIN_S = 2.0
"""When a visitor whose requests are all open may ask again: no more is known than that they are being served."""


class AdmittedRequest:
    """A request that was let in. `end` is called once its answer has been sent."""

    def __init__(self, visitor: RateLimitedClient, limits: RateLimiter, end: Callable[[], None]) -> None:
        self.visitor = visitor
        self.end = end
        self._limits = limits
        self._charges: list[Charge] = []

    def charge_request(self) -> None:
        """Count the request itself; raise a Problem when the limit is reached."""
        self._charges.append(self._limits.charge(self.visitor, "requests"))

    def charge_pixels(self, pixels: int) -> None:
        """Count the megapixels of an upload, before anything of it is decoded; raise a Problem when they do not fit."""
        self._charges.append(self._limits.charge(self.visitor, "megapixels", count_megapixels(pixels)))

    def charge_wake(self) -> None:
        """Count a call that wakes the backend; raise a Problem when the limit is reached."""
        self._charges.append(self._limits.charge(self.visitor, "wakes"))

    def give_back_pixels(self) -> None:
        """Count no megapixels: nothing was computed."""
        for charge in self._charges:
            if charge.what == "megapixels":
                charge.give_back()

    def settle(self, problem: Problem) -> None:
        """Give back what an answer with this problem is not worth: the megapixels of any, all of our own failures.

        A full queue is no failure: the request stays counted, else whoever hammers at it is never told to stop.
        """
        self.give_back_pixels()
        if problem.status >= 500 and not isinstance(problem, QueueFull):
            for charge in self._charges:
                charge.give_back()

    def standings(self, now: float) -> list[RateLimitStatus]:
        """Return where the visitor stands at each limit that this request was charged to."""
        return [standing for charge in self._charges for standing in charge.standings(now)]


class ConcurrencyLimit:
    """The requests that are being served, of which a visitor has a bounded number. Safe to use from several threads."""

    def __init__(self, limits: RateLimiter, at_once: int) -> None:
        self._limits = limits
        self._at_once = at_once
        self._lock = Lock()
        self._open: Counter[str] = Counter()

    def begin(self, visitor: RateLimitedClient) -> AdmittedRequest:
        """Let a request in; raise TooManyAtOnce while as many of its visitor are open as may be."""
        with self._lock:
            if self._open[visitor.id] >= self._at_once:
                raise retry_later(
                    TooManyAtOnce,
                    f"You have {self._at_once} requests open, as many as one may have at once. Wait for one to end.",
                    AGAIN_S,
                )
            self._open[visitor.id] += 1
        has_ended = False

        def end() -> None:
            nonlocal has_ended
            with self._lock:
                if not has_ended:
                    has_ended = True
                    self._open[visitor.id] -= 1
                    self._open += Counter()  # forgets whoever has none open

        return AdmittedRequest(visitor, self._limits, end)

    def count(self) -> int:
        """Return how many requests are open: let in, and their answers not sent yet."""
        with self._lock:
            return sum(self._open.values())
