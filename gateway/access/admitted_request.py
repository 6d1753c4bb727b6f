"""Requests that access control has admitted: what they are charged, when they are refunded, how many run at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Lock

from gateway.access.rate_limits import Charge, RateLimitedClient, RateLimiter, RateLimitStatus, SharedHit
from gateway.config.rates import count_megapixels
from gateway.problems import Problem, QueueFull, TooManyAtOnce, retry_later

# When a client whose requests are all running may try again. How long they will take is not known.
_RETRY_AFTER_S = 2.0


def is_refunded(resource: str, problem: Problem) -> bool:
    """Return whether a problem refunds a resource: megapixels always, everything if the fault is ours."""
    return resource == "megapixels" or (problem.status >= 500 and not isinstance(problem, QueueFull))


class AdmittedRequest:
    """A request that was admitted. `release` must be called once its response has been sent."""

    def __init__(self, client: RateLimitedClient, limiter: RateLimiter, release: Callable[[], None]) -> None:
        self.client = client
        self.release = release
        self._limiter = limiter
        self._charges: list[Charge] = []

    def charge_request(self) -> None:
        """Count the request itself. Raises a Problem if a limit is exceeded."""
        self._charges.append(self._limiter.charge(self.client, "requests"))

    def charge_pixels(self, pixels: int) -> None:
        """Count the megapixels of an upload, before any of it is decoded. Raises a Problem if a limit is exceeded."""
        self._charges.append(self._limiter.charge(self.client, "megapixels", count_megapixels(pixels)))

    def charge_wake(self) -> None:
        """Count a call that wakes the backend. Raises a Problem if a limit is exceeded."""
        self._charges.append(self._limiter.charge(self.client, "wakes"))

    def charge_poll(self) -> None:
        """Count a request for the state of a job. Raises a Problem if a limit is exceeded."""
        self._charges.append(self._limiter.charge(self.client, "polls"))

    def another(self) -> AdmittedRequest:
        """Return an admission for a further image of this request, with charges of its own. It is not released."""
        return AdmittedRequest(self.client, self._limiter, lambda: None)

    def refund_all(self) -> None:
        """Refund everything, because the image was not looked at."""
        for charge in self._charges:
            self._limiter.refund(charge)

    def megapixel_statuses(self) -> list[RateLimitStatus]:
        """Return the client's status at each megapixel limit, without counting anything."""
        return self._limiter.read(self.client, "megapixels")

    def refund_for(self, problem: Problem) -> None:
        """Refund what a response with this problem does not cost: megapixels always, everything if the fault is ours.

        A full queue is not a fault. The request stays counted, so that a client that keeps trying reaches its limit.
        """
        for charge in self._charges:
            if is_refunded(charge.resource, problem):
                self._limiter.refund(charge)

    def shared_hits(self) -> list[SharedHit]:
        """Return what was counted in Redis, so that another gateway can refund it."""
        return [
            (charge.resource, hit.key, hit.amount, hit.time)
            for charge in self._charges
            for hit in charge.hits
            if hit.is_shared
        ]

    def rate_limit_headers(self) -> dict[str, str]:
        """Return the response headers that report the client's status at each limit of this request."""
        statuses = [status for charge in self._charges for status in self._limiter.statuses(charge)]
        return self._limiter.headers(statuses)


class ConcurrencyLimit:
    """Limits the number of requests of one client that run at the same time. Safe for several threads."""

    def __init__(self, limiter: RateLimiter, max_per_client: int) -> None:
        self._limiter = limiter
        self._max_per_client = max_per_client
        self._lock = Lock()
        self._running: Counter[str] = Counter()

    def admit(self, client: RateLimitedClient) -> AdmittedRequest:
        """Admit a request. Raises TooManyAtOnce if the maximum number of the client's requests is running."""
        with self._lock:
            if self._running[client.id] >= self._max_per_client:
                raise retry_later(
                    TooManyAtOnce,
                    f"The maximum of {self._max_per_client} concurrent requests is reached. Wait until one has ended.",
                    _RETRY_AFTER_S,
                )
            self._running[client.id] += 1
        is_released = False

        def release() -> None:
            nonlocal is_released
            with self._lock:
                if not is_released:
                    is_released = True
                    self._running[client.id] -= 1
                    self._running += Counter()  # drops clients whose count is 0

        return AdmittedRequest(client, self._limiter, release)

    def count(self) -> int:
        """Return the number of admitted requests whose response has not been sent completely."""
        with self._lock:
            return sum(self._running.values())
