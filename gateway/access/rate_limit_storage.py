"""Where rate limits are counted: in a Redis that several gateways share, or in this process's memory.

`FallbackStorage` is a storage of the package `limits`. While Redis cannot be reached, each process counts in its own
memory: no request fails, none waits for more than one timeout, and Redis is tried again every second. To the interface
of `limits` it adds what our rate limits need: an amount can be refunded, and the wait until an amount fits is exact.

The fallback of flask-limiter 4.1.1 is not used: it lets requests fail that are waiting for Redis when another request
notices the outage (measured with 8 threads: 6 responses of 500 when Redis was killed, 7 when it was frozen).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from limits.storage import MovingWindowSupport, Storage

from gateway.access.moving_windows import Clock, MemoryWindows, RedisWindows

R = TypeVar("R")

SCHEME = "superres"

# While Redis is unreachable, one request per second tries it and waits for at most one timeout of `storage.redis`.
RETRY_S = 1.0

# Minimum time between two log lines about commands that Redis rejects. A busy client's key would fill the log.
_LOG_AGAIN_S = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hit:
    """An amount that was counted and can be refunded."""

    key: str
    amount: int
    time: float
    is_shared: bool
    """Whether Redis counted it, rather than this process's memory."""


class CircuitBreaker:
    """Stops calls to a Redis that does not respond, and allows one call per RETRY_S to test whether it is back.

    Safe for several threads.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Time of the next test; 0 while Redis responds.
        self._retry_at = 0.0
        self._next_rejection_log = 0.0
        self.outages = 0
        """Number of failed calls. The result of a call that began before the last of them does not end the outage."""

    @property
    def is_closed(self) -> bool:
        """Whether Redis responded to the last call."""
        return not self._retry_at

    def allows_call(self) -> bool:
        """Return whether to call Redis now."""
        if self.is_closed:
            return True
        with self._lock:
            now = self._clock()
            if self._retry_at > now:
                return False
            self._retry_at = now + RETRY_S
            return True

    def record_success(self, outages: int) -> None:
        """Record a response. `outages` is the number of outages when the call began."""
        if not self.is_closed:
            with self._lock:
                if self.outages != outages:
                    return
                self._retry_at = 0.0
            _log.warning("Redis is reachable again. Rate limits are shared between gateways.")

    def record_rejection(self, error: Exception, outages: int) -> None:
        """Record that Redis responded, but rejected the command."""
        self.record_success(outages)
        with self._lock:
            now = self._clock()
            is_due, self._next_rejection_log = (
                now >= self._next_rejection_log,
                max(self._next_rejection_log, now + _LOG_AGAIN_S),
            )
        if is_due:
            _log.error("Redis rejected a command (%s). That amount is counted in this process only.", error)

    def record_outage(self, error: Exception) -> None:
        """Record that Redis did not respond."""
        with self._lock:
            was_closed = self.is_closed
            self.outages += 1
            self._retry_at = self._clock() + RETRY_S
        if was_closed:
            _log.error(
                "Redis is unreachable (%s). Until it is back, each gateway process counts rate limits by itself.",
                type(error).__name__,
            )


class _RedisUnavailableError(Exception):
    """Redis is not configured, did not respond, or rejected the command."""


class FallbackStorage(Storage, MovingWindowSupport):
    """Counts in Redis if a URL is given and Redis responds, else in memory. Safe for several threads.

    flask-limiter creates it for the storage URI "superres://".
    """

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 - `limits` declares it without ClassVar

    def __init__(
        self,
        uri: str | None = None,
        *,
        redis_url: str = "",
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
        **_: Any,
    ) -> None:
        super().__init__(uri)
        self._clock = clock
        self._memory = MemoryWindows(clock=clock)
        self._redis = RedisWindows(redis_url) if redis_url else None
        self._breaker = CircuitBreaker(monotonic)

    def acquire(self, key: str, limit: int, expiry: int, amount: int = 1) -> Hit | None:
        """Count an amount if it fits into the limit. Returns None if it does not."""
        now = self._clock()
        fits, is_shared = self._call(lambda windows: windows.acquire(key, limit, expiry, amount, now))
        return Hit(key, amount, now, is_shared) if fits else None

    def refund(self, hit: Hit) -> None:
        """Remove a hit where it was counted. If Redis counted it and is unreachable now, it stays counted."""
        if not hit.is_shared:
            self._memory.refund(hit.key, hit.amount, hit.time)
            return
        with suppress(_RedisUnavailableError):
            self._call_redis(lambda windows: windows.refund(hit.key, hit.amount, hit.time))

    def wait_s(self, key: str, limit: int, expiry: int, amount: int) -> float:
        """Return the seconds until an amount fits, provided that nothing else is counted until then."""
        now = self._clock()
        return self._call(lambda windows: windows.wait_s(key, limit, expiry, amount, now))[0]

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count an amount if it fits into the limit, and return whether it did."""
        return self.acquire(key, limit, expiry, amount) is not None

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the time of the oldest amount in the window and the sum of all amounts in it."""
        return self._call(lambda windows: windows.get_moving_window(key, limit, expiry))[0]

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add an amount to a fixed window and return its count."""
        return self._call(lambda windows: windows.incr(key, expiry, amount))[0]

    def get(self, key: str) -> int:
        """Return the count of a fixed window."""
        return self._call(lambda windows: windows.get(key))[0]

    def get_expiry(self, key: str) -> float:
        """Return the time at which a fixed window ends."""
        return self._call(lambda windows: windows.get_expiry(key))[0]

    def clear(self, key: str) -> None:
        """Drop everything that was counted under a key."""
        self._call(lambda windows: windows.clear(key))

    def reset(self) -> int | None:
        """Drop all counts, and return the number of keys that had one."""
        return self._call(lambda windows: windows.reset())[0]

    def check(self) -> bool:
        """Return whether amounts are counted where they should be: in Redis, if it is configured."""
        return self._redis is None or self._breaker.is_closed

    @property
    def base_exceptions(self) -> type[Exception]:
        """The exceptions that callers may have to handle. None leaves this class; `limits` asks for a type."""
        return redis.RedisError

    def _call(self, operation: Callable[[RedisWindows | MemoryWindows], R]) -> tuple[R, bool]:
        """Return the result of an operation, and whether it was done in Redis rather than in memory."""
        try:
            return self._call_redis(operation), True
        except _RedisUnavailableError:
            return operation(self._memory), False

    def _call_redis(self, operation: Callable[[RedisWindows], R]) -> R:
        """Return the result of an operation in Redis. Raises _RedisUnavailableError if there is none."""
        if self._redis is None or not self._breaker.allows_call():
            raise _RedisUnavailableError
        outages = self._breaker.outages
        try:
            result = operation(self._redis)
        except (redis.RedisError, OSError) as error:
            # Subclasses of ResponseError report the state of the whole server: out of memory, read-only.
            if type(error) is redis.ResponseError:
                self._breaker.record_rejection(error, outages)
            else:
                self._breaker.record_outage(error)
            raise _RedisUnavailableError from error
        self._breaker.record_success(outages)
        return result
