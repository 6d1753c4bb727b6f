"""Where rate limits are counted: in a Redis that several gateways share, or in this process's memory.

`FallbackStorage` is a storage of the package `limits`. While Redis cannot be used, each process counts in its own
memory: no request fails, none waits for more than one timeout, and Redis is tried again every second. To the interface
of `limits` it adds what our rate limits need: an amount can be refunded, and the wait until an amount fits is exact.

The fallback of flask-limiter 4.1.1 is not used: it lets requests fail that are waiting for Redis when another request
notices the outage (measured with 8 threads: 6 responses of 500 when Redis was killed, 7 when it was frozen).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from limits.storage import MovingWindowSupport, Storage

from gateway.access.circuit_breaker import CircuitBreaker
from gateway.access.moving_windows import Clock, MemoryWindows, WindowUsage
from gateway.access.redis_windows import RedisWindows
from gateway.storage.redis import RedisCommandError, RedisUnavailableError

R = TypeVar("R")

SCHEME = "superres"


@dataclass(frozen=True)
class Hit:
    """An amount that was counted and can be refunded."""

    key: str
    amount: int
    time: float
    """Time by the clock of the windows that counted it: Redis's own, or this process's monotonic clock."""
    is_shared: bool
    """Whether the amount was counted in Redis. False if it was counted in this process's memory."""


class _NotInRedisError(Exception):
    """Redis is not configured, cannot be used, or rejected the command."""


class FallbackStorage(Storage, MovingWindowSupport):
    """Counts in Redis if a URL is given and Redis can be used, else in memory. Safe for several threads.

    flask-limiter creates it for the storage URI "superres://".
    """

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 - `limits` declares it without ClassVar

    def __init__(
        self,
        uri: str | None = None,
        *,
        redis_url: str = "",
        clock: Clock = time.monotonic,
        redis_clock: Clock | None = None,
        **_: Any,
    ) -> None:
        """`clock` counts in memory and times the next try; `redis_clock` replaces Redis's own clock in tests."""
        super().__init__(uri)
        self._memory = MemoryWindows(clock=clock)
        self._redis = RedisWindows(redis_url, clock=redis_clock) if redis_url else None
        self._breaker = CircuitBreaker(clock)
        # Key of the call that failed last. In a cluster, it shows which node must accept a write.
        self._failed_key = ""

    def acquire(self, key: str, limit: int, expiry: int, amount: int = 1) -> Hit | None:
        """Count an amount if it fits into the limit. Returns None if it does not."""
        counted_at, is_shared = self._call(key, lambda windows: windows.acquire(key, limit, expiry, amount))
        return None if counted_at is None else Hit(key, amount, counted_at, is_shared)

    def refund(self, hit: Hit) -> None:
        """Remove a hit where it was counted. If Redis counted it and cannot be used now, it stays counted."""
        if not hit.is_shared:
            self._memory.refund(hit.key, hit.amount, hit.time)
            return
        with suppress(_NotInRedisError):
            self._call_redis(hit.key, lambda windows: windows.refund(hit.key, hit.amount, hit.time))

    def usage(self, key: str, expiry: int) -> WindowUsage:
        """Return what is counted in a window."""
        return self._call(key, lambda windows: windows.usage(key, expiry))[0]

    def wait_s(self, key: str, limit: int, expiry: int, amount: int) -> float:
        """Return the seconds until an amount fits, provided that nothing else is counted until then."""
        return self._call(key, lambda windows: windows.wait_s(key, limit, expiry, amount))[0]

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count an amount if it fits into the limit, and return whether it did."""
        return self.acquire(key, limit, expiry, amount) is not None

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the time of the oldest amount in the window (since 1970) and the sum of all amounts in it."""
        del limit
        usage = self.usage(key, expiry)
        return time.time() - usage.oldest_s, usage.used

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add an amount to a fixed window and return its count."""
        return self._call(key, lambda windows: windows.incr(key, expiry, amount))[0]

    def get(self, key: str) -> int:
        """Return the count of a fixed window."""
        return self._call(key, lambda windows: windows.get(key))[0]

    def get_expiry(self, key: str) -> float:
        """Return the time (since 1970) at which a fixed window ends."""
        return time.time() + self._call(key, lambda windows: windows.remaining_s(key))[0]

    def clear(self, key: str) -> None:
        """Drop everything that was counted under a key."""
        self._call(key, lambda windows: windows.clear(key))

    def reset(self) -> int | None:
        """Drop all counts, and return the number of keys that had one."""
        return self._call("", lambda windows: windows.reset())[0]

    def check(self) -> bool:
        """Return whether amounts are counted where they should be: in Redis, if it is configured."""
        return self._redis is None or self._breaker.is_closed

    @property
    def base_exceptions(self) -> type[Exception]:
        """The exceptions that callers may have to handle. None leaves this class; `limits` asks for a type."""
        return RedisUnavailableError

    def _call(self, key: str, operation: Callable[[RedisWindows | MemoryWindows], R]) -> tuple[R, bool]:
        """Return the result of an operation, and whether it was done in Redis rather than in memory."""
        try:
            return self._call_redis(key, operation), True
        except _NotInRedisError:
            return operation(self._memory), False

    def _call_redis(self, key: str, operation: Callable[[RedisWindows], R]) -> R:
        """Return the result of an operation in Redis. Raises _NotInRedisError if there is none."""
        breaker = self._breaker
        if self._redis is None or not breaker.allows_call():
            raise _NotInRedisError
        outages = breaker.outages
        try:
            if not breaker.is_closed:
                self._test_write(self._redis)
            result = operation(self._redis)
        except RedisUnavailableError as error:
            self._failed_key = key
            breaker.record_outage(str(error))
            raise _NotInRedisError from error
        except RedisCommandError as error:
            breaker.record_rejection(str(error), outages)
            raise _NotInRedisError from error
        breaker.record_success(outages)
        return result

    def _test_write(self, windows: RedisWindows) -> None:
        """Raise RedisUnavailableError unless Redis accepts a write where the last call failed."""
        try:
            windows.write_probe(self._failed_key)
        except RedisCommandError as error:
            raise RedisUnavailableError(f"it rejects writes: {error}") from error
