"""Counters: who has used how much in the last minutes and hours, in memory or in a Redis that several gateways share.

A storage for flask-limiter's moving window. It adds to those of the package `limits` what the doors need: amounts can
be given back, and the wait for an amount is known exactly. While Redis is away each process counts by itself, and no
request pays for that with an error or with more than one time-out; it is asked again every RETRY_S.

Why not flask-limiter's own fallback (4.1.1): requests that are in Redis when another one finds it gone end in an error
(measured: 6 and 7 answers of 500 when Redis was killed and frozen under 8 threads); its store in memory is unbounded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from limits.storage import MovingWindowSupport, RedisStorage, Storage

from gateway.storage.redis import connect

R = TypeVar("R")
Clock = Callable[[], float]

SCHEME = "superres"
RETRY_S = 1.0
"""Between two tries to reach a Redis that is away: one request in that time waits, within `redis_client`'s bounds."""
SAY_S = 60.0
"""Between two lines of the log on commands that Redis refuses: a busy client's key would fill it."""
MAX_KEYS = 50_000
"""Counted in memory at once, some 20 MB; then the one that was not used for longest is forgotten. Whoever owns so many
addresses gains nothing by it that another address would not give."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hit:
    """An amount that was counted, so that it can be given back."""

    key: str
    amount: int
    moment: float
    is_shared: bool
    """In Redis, not in this process's memory."""


taken: ContextVar[list[Hit] | None] = ContextVar("taken", default=None)
"""Where each amount that is counted is noted, for whoever may have to give it back."""


class MemoryWindows:
    """Moving windows in memory: of each key, amounts with their moments. Exact with any number of threads."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._windows: OrderedDict[str, list[tuple[float, int]]] = OrderedDict()

    def acquire(self, key: str, limit: int, window_s: float, amount: int, now: float) -> bool:
        """Count an amount if it fits."""
        with self._lock:
            entries = self._live(key, window_s, now)
            if sum(count for _, count in entries) + amount > limit:
                return False
            entries.append((now, amount))
            self._windows[key] = entries
            self._windows.move_to_end(key)
            if len(self._windows) > self._max_keys:
                self._windows.popitem(last=False)
            return True

    def release(self, key: str, amount: int, moment: float) -> None:
        """Forget an amount that was counted at that moment."""
        with self._lock:
            entries = self._windows.get(key, [])
            if (moment, amount) in entries:
                entries.remove((moment, amount))
            if not entries:
                self._windows.pop(key, None)

    def used(self, key: str, window_s: float, now: float) -> tuple[float, int]:
        """Return (moment of the oldest amount, sum of all) within the window."""
        with self._lock:
            entries = self._live(key, window_s, now)
            return (entries[0][0] if entries else now, sum(count for _, count in entries))

    def wait_s(self, key: str, limit: int, window_s: float, amount: int, now: float) -> float:
        """Return how long until an amount fits, if nothing else is counted meanwhile."""
        with self._lock:
            entries = self._live(key, window_s, now)
            excess = sum(count for _, count in entries) + amount - limit
            wait_s = 0.0
            for moment, count in entries:
                if excess <= 0:
                    break
                excess -= count
                wait_s = moment + window_s - now
        return max(0.0, wait_s)

    def _live(self, key: str, window_s: float, now: float) -> list[tuple[float, int]]:
        entries = self._windows.get(key, [])
        gone = 0
        while gone < len(entries) and entries[gone][0] < now - window_s:
            gone += 1
        del entries[:gone]
        if not entries:
            self._windows.pop(key, None)
        return entries

    def __len__(self) -> int:
        return len(self._windows)


_RELEASE = "return redis.call('lrem', KEYS[1], ARGV[1], tonumber(ARGV[2]))"
"""As a number, because the moments were written as numbers by the script that counts."""


class RedisWindows:
    """Moving windows in Redis: the scripts of the package `limits`, one list of moments a key, one moment a unit."""

    def __init__(self, url: str) -> None:
        client = connect(url)
        # limits builds its own client from the URL; it is given ours, with its time-outs.
        self._store = RedisStorage(url, connection_pool=client.connection_pool, key_prefix=SCHEME)
        self._client = client
        self._release = client.register_script(_RELEASE)

    def acquire(self, key: str, limit: int, window_s: float, amount: int, now: float) -> bool:
        """Count an amount if it fits; atomic in Redis."""
        arguments = [now, limit, int(window_s), amount]
        return bool(self._store.lua_acquire_moving_window([self._store.prefixed_key(key)], arguments))

    def release(self, key: str, amount: int, moment: float) -> None:
        """Forget an amount that was counted at that moment."""
        self._release([self._store.prefixed_key(key)], [amount, moment])

    def used(self, key: str, limit: int, window_s: float) -> tuple[float, int]:
        """Return (moment of the oldest amount, sum of all) within the window."""
        return self._store.get_moving_window(key, limit, int(window_s))

    def wait_s(self, key: str, limit: int, window_s: float, amount: int, now: float) -> float:
        """Return how long until an amount fits, if nothing else is counted meanwhile."""
        moment: Any = self._client.lindex(self._store.prefixed_key(key), limit - amount)
        return 0.0 if moment is None else max(0.0, float(moment) + window_s - now)


class FallbackStorage(Storage, MovingWindowSupport):
    """What flask-limiter counts in; made by it, for the scheme SCHEME. Safe to use from several threads."""

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 - the package's own form

    def __init__(self, uri: str | None = None, *, redis_url: str = "", clock: Clock = time.time, **_: Any) -> None:
        super().__init__(uri)
        self._clock = clock
        self._memory = MemoryWindows()
        self._redis = RedisWindows(redis_url) if redis_url else None
        self._lock = threading.Lock()
        self._ask_again = 0.0
        """Moment of time.monotonic before which a Redis that is away is not asked; 0 while it is there."""
        self._losses = 0
        """Times that Redis did not answer: what was asked before the last of them says nothing of it now."""
        self._say_again = 0.0
        """Moment before which no other refusal of one command is logged."""

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count an amount if it fits, and note that."""
        now = self._clock()
        is_there, is_shared = self._try(
            lambda windows: windows.acquire(key, limit, expiry, amount, now),
            lambda: self._memory.acquire(key, limit, expiry, amount, now),
        )
        noted = taken.get()
        if is_there and noted is not None:
            noted.append(Hit(key, amount, now, is_shared))
        return is_there

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return (moment of the oldest amount, sum of all) within the window."""
        return self._try(
            lambda windows: windows.used(key, limit, expiry),
            lambda: self._memory.used(key, expiry, self._clock()),
        )[0]

    def wait_s(self, key: str, limit: int, expiry: int, amount: int) -> float:
        """Return how long until an amount fits, if nothing else is counted meanwhile."""
        now = self._clock()
        return self._try(
            lambda windows: windows.wait_s(key, limit, expiry, amount, now),
            lambda: self._memory.wait_s(key, limit, expiry, amount, now),
        )[0]

    def release(self, one: Hit) -> None:
        """Give an amount back where it was counted; what was counted in a Redis that is away stays counted."""
        if one.is_shared:
            self._try(lambda windows: windows.release(one.key, one.amount, one.moment), lambda: None)
        else:
            self._memory.release(one.key, one.amount, one.moment)

    def check(self) -> bool:
        """Whether amounts are counted where they should be: in Redis, when there is to be one."""
        return self._redis is None or not self._ask_again

    def _try(self, ask: Callable[[RedisWindows], R], alone: Callable[[], R]) -> tuple[R, bool]:
        """Return (what Redis answers, True), or (what our memory does, False) when there is none or it is away."""
        if self._redis is not None and self._may_ask():
            losses = self._losses
            try:
                answer = ask(self._redis)
            except (redis.RedisError, OSError) as error:
                if type(error) is redis.ResponseError:  # subclasses tell of all of it: out of memory, read-only
                    self._note_refusal(error, losses)
                else:
                    self._note_away(error)
            else:
                self._note_back(losses)
                return answer, True
        return alone(), False

    def _may_ask(self) -> bool:
        """Whether to ask Redis: while it is away, one request in RETRY_S does."""
        if not self._ask_again:
            return True
        with self._lock:
            now = time.monotonic()
            if self._ask_again > now:
                return False
            self._ask_again = now + RETRY_S
            return True

    def _note_refusal(self, error: Exception, losses: int) -> None:
        """Redis is there and refuses one command: that amount counts here, all others go on counting together."""
        self._note_back(losses)
        with self._lock:
            now = time.monotonic()
            is_news, self._say_again = now >= self._say_again, max(self._say_again, now + SAY_S)
        if is_news:
            _log.error("Redis refuses a command (%s): its amount counts in this process alone.", error)

    def _note_away(self, error: Exception) -> None:
        with self._lock:
            was_there = not self._ask_again
            self._losses += 1
            self._ask_again = time.monotonic() + RETRY_S
        if was_there:
            _log.error("Redis is away (%s): each process counts by itself until it is back.", type(error).__name__)

    def _note_back(self, losses: int) -> None:
        """Redis has answered what was asked after so many losses; it may have been lost since."""
        if self._ask_again:
            with self._lock:
                if self._losses != losses:
                    return
                self._ask_again = 0.0
            _log.warning("Redis is back: the gateways count together again.")

    @property
    def base_exceptions(self) -> type[Exception]:
        """What flask-limiter may expect to be raised: nothing of Redis leaves here."""
        return redis.RedisError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Refuse: fixed windows, which are not exact at their ends, are not kept."""
        raise NotImplementedError

    def get(self, key: str) -> int:
        """Refuse, as `incr`."""
        raise NotImplementedError

    def get_expiry(self, key: str) -> float:
        """Refuse, as `incr`."""
        raise NotImplementedError

    def reset(self) -> int | None:
        """Refuse: counts end by themselves."""
        raise NotImplementedError

    def clear(self, key: str) -> None:
        """Refuse: amounts are given back one by one."""
        raise NotImplementedError
