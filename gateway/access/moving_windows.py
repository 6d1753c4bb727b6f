"""Moving windows for rate limits: how much each key has used in the last seconds, hours or days.

Extends two storages of the package `limits`, in memory and in Redis. Both can refund an amount and tell exactly how
long an amount has to wait. `rate_limit_storage` chooses between them.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeAlias

from limits.storage import MemoryStorage, RedisStorage

from gateway.storage.redis import connect

Clock: TypeAlias = Callable[[], float]

KEY_PREFIX = "superres:rate-limit"

# Maximum number of keys in memory, some 20 MB. Beyond it, the key that was not used for the longest time is dropped. A
# client that owns this many addresses gains nothing by that: it could use another address instead.
_MAX_KEYS = 50_000

# The amount is passed as a number because the acquire script of `limits` stored the times as numbers.
_REFUND_SCRIPT = "return redis.call('lrem', KEYS[1], ARGV[1], tonumber(ARGV[2]))"


class MemoryWindows(MemoryStorage):
    """Moving windows in memory: exact with any number of threads, and bounded by `max_keys`.

    Each key has a list of (time, amount), oldest first. The moving windows of MemoryStorage itself (limits 5.8) have no
    maximum number of keys. Its fixed windows, which the gateway does not use, are inherited.
    """

    def __init__(self, max_keys: int = _MAX_KEYS, *, clock: Clock = time.time) -> None:
        super().__init__()
        self._max_keys = max_keys
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: OrderedDict[str, list[tuple[float, int]]] = OrderedDict()

    def acquire(self, key: str, limit: int, expiry: int, amount: int, now: float) -> bool:
        """Count an amount if it fits into the limit, and return whether it did."""
        with self._lock:
            entries = self._current_entries(key, expiry, now)
            if sum(count for _, count in entries) + amount > limit:
                return False
            entries.append((now, amount))
            self._windows[key] = entries
            self._windows.move_to_end(key)
            if len(self._windows) > self._max_keys:
                self._windows.popitem(last=False)
            return True

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count an amount if it fits into the limit, and return whether it did."""
        return self.acquire(key, limit, expiry, amount, self._clock())

    def refund(self, key: str, amount: int, counted_at: float) -> None:
        """Remove an amount that was counted at that time."""
        with self._lock:
            entries = self._windows.get(key, [])
            if (counted_at, amount) in entries:
                entries.remove((counted_at, amount))
            if not entries:
                self._windows.pop(key, None)

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the time of the oldest amount in the window and the sum of all amounts in it."""
        del limit
        now = self._clock()
        with self._lock:
            entries = self._current_entries(key, expiry, now)
            return (entries[0][0] if entries else now, sum(count for _, count in entries))

    def wait_s(self, key: str, limit: int, expiry: int, amount: int, now: float) -> float:
        """Return the seconds until an amount fits, provided that nothing else is counted until then."""
        with self._lock:
            entries = self._current_entries(key, expiry, now)
            excess = sum(count for _, count in entries) + amount - limit
            wait_s = 0.0
            for counted_at, count in entries:
                if excess <= 0:
                    break
                excess -= count
                wait_s = counted_at + expiry - now
        return max(0.0, wait_s)

    def clear(self, key: str) -> None:
        """Drop everything that was counted under a key."""
        with self._lock:
            self._windows.pop(key, None)
        super().clear(key)

    def reset(self) -> int | None:
        """Drop everything, and return the number of keys that had a count."""
        with self._lock:
            dropped = len(self._windows)
            self._windows.clear()
        return dropped + (super().reset() or 0)

    def _current_entries(self, key: str, expiry: float, now: float) -> list[tuple[float, int]]:
        """Return a key's amounts within the window, after dropping the older ones. The lock must be held."""
        entries = self._windows.get(key, [])
        expired = 0
        while expired < len(entries) and entries[expired][0] < now - expiry:
            expired += 1
        del entries[:expired]
        if not entries:
            self._windows.pop(key, None)
        return entries

    def __len__(self) -> int:
        return len(self._windows)


class RedisWindows(RedisStorage):
    """Moving windows in Redis by the scripts of `limits`: one list of times per key, one entry per unit.

    Its connections are those of `gateway.storage.redis`, whose timeouts are short.
    """

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        super().__init__(url, connection_pool=self._client.connection_pool, key_prefix=KEY_PREFIX)
        self._refund = self._client.register_script(_REFUND_SCRIPT)

    def acquire(self, key: str, limit: int, expiry: int, amount: int, now: float) -> bool:
        """Count an amount if it fits into the limit, and return whether it did. Atomic in Redis."""
        return bool(self.lua_acquire_moving_window([self.prefixed_key(key)], [now, limit, expiry, amount]))

    def refund(self, key: str, amount: int, counted_at: float) -> None:
        """Remove an amount that was counted at that time."""
        self._refund([self.prefixed_key(key)], [amount, counted_at])

    def wait_s(self, key: str, limit: int, expiry: int, amount: int, now: float) -> float:
        """Return the seconds until an amount fits, provided that nothing else is counted until then."""
        blocking: Any = self._client.lindex(self.prefixed_key(key), limit - amount)
        return 0.0 if blocking is None else max(0.0, float(blocking) + expiry - now)
