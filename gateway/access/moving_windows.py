"""Moving windows for rate limits: how much each key has used in the last seconds, hours or days.

These are kept in memory, `redis_windows` has those in Redis, and `rate_limit_storage` chooses between them. Both can
refund an amount and tell exactly how long an amount has to wait.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from limits.storage import MemoryStorage

Clock: TypeAlias = Callable[[], float]

# Maximum number of keys in memory, some 20 MB. Beyond it, the key that was not used for the longest time is dropped. A
# client that owns this many addresses gains nothing by that: it could use another address instead.
_MAX_KEYS = 50_000


@dataclass(frozen=True)
class WindowUsage:
    """What is counted in a window."""

    used: int
    oldest_s: float
    """Seconds since the oldest of it was counted."""


@dataclass
class _Window:
    """The amounts of one key."""

    entries: deque[tuple[float, int]] = field(default_factory=deque)
    """(time, amount), oldest first."""
    used: int = 0
    """Their sum, kept so that no request adds up thousands of earlier ones."""

    def drop_before(self, time_s: float) -> None:
        """Drop the amounts that were counted before a time."""
        while self.entries and self.entries[0][0] < time_s:
            self.used -= self.entries.popleft()[1]


class MemoryWindows:
    """Moving windows in memory: exact with any number of threads, and bounded by `max_keys`.

    The clock is monotonic: a machine's clock that is set back or
    forward changes nothing. The moving windows of MemoryStorage (limits 5.8) have no maximum number of keys; its fixed
    windows, which `limits` wants and the gateway does not use, are taken from there.
    """

    def __init__(self, max_keys: int = _MAX_KEYS, *, clock: Clock = time.monotonic) -> None:
        self._fixed = MemoryStorage()
        self._max_keys = max_keys
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def acquire(self, key: str, limit: int, expiry: int, amount: int) -> float | None:
        """Count an amount if it fits into the limit. Return the time at which it was counted, or None."""
        with self._lock:
            now = self._clock()
            window = self._current(key, expiry, now)
            if window.used + amount > limit:
                return None
            window.entries.append((now, amount))
            window.used += amount
            self._windows[key] = window
            self._windows.move_to_end(key)
            if len(self._windows) > self._max_keys:
                self._windows.popitem(last=False)
            return now

    def refund(self, key: str, amount: int, counted_at: float) -> None:
        """Remove an amount that was counted at that time."""
        with self._lock:
            window = self._windows.get(key, _Window())
            if (counted_at, amount) in window.entries:
                window.entries.remove((counted_at, amount))
                window.used -= amount
            if not window.entries:
                self._windows.pop(key, None)

    def usage(self, key: str, expiry: int) -> WindowUsage:
        """Return what is counted in the window."""
        with self._lock:
            now = self._clock()
            window = self._current(key, expiry, now)
            return WindowUsage(window.used, now - window.entries[0][0] if window.entries else 0.0)

    def wait_s(self, key: str, limit: int, expiry: int, amount: int) -> float:
        """Return the seconds until an amount fits, provided that nothing else is counted until then."""
        with self._lock:
            now = self._clock()
            window = self._current(key, expiry, now)
            excess = window.used + amount - limit
            wait_s = 0.0
            for counted_at, count in window.entries:
                if excess <= 0:
                    break
                excess -= count
                wait_s = counted_at + expiry - now
        return max(0.0, wait_s)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add an amount to a fixed window and return its count."""
        return self._fixed.incr(key, expiry, amount)

    def get(self, key: str) -> int:
        """Return the count of a fixed window."""
        return self._fixed.get(key)

    def remaining_s(self, key: str) -> float:
        """Return the seconds until a fixed window ends."""
        return max(0.0, self._fixed.get_expiry(key) - time.time())

    def clear(self, key: str) -> None:
        """Drop everything that was counted under a key."""
        with self._lock:
            self._windows.pop(key, None)
        self._fixed.clear(key)

    def reset(self) -> int:
        """Drop everything, and return the number of keys that had a count."""
        with self._lock:
            dropped = len(self._windows)
            self._windows.clear()
        return dropped + (self._fixed.reset() or 0)

    def _current(self, key: str, expiry: float, now: float) -> _Window:
        """Return a key's window, after dropping what is older. The lock must be held."""
        window = self._windows.get(key, _Window())
        window.drop_before(now - expiry)
        if not window.entries:
            self._windows.pop(key, None)
        return window

    def __len__(self) -> int:
        return len(self._windows)
