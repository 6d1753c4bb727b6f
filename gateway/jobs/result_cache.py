"""The cache: results by the content of their uploads, kept in memory, bounded in bytes, number and age.

The key is a hash of everything that the answer's bytes follow from: the upload's bytes (which hold pixels, alpha,
colour profile, orientation and frames), variant, format, quality. Two uploads that differ in a byte are two pictures:
to tell that their pixels are equal both would have to be decoded, for which a hit has no place. Asks not who asks.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.cancellation import CancelToken
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.runner import Result, Watch

Clock = Callable[[], float]


@dataclass(frozen=True)
class CacheState:
    """What is in the cache, and how often it had what was asked for."""

    count: int
    n_bytes: int
    hits: int
    misses: int


class CachedJob:
    """A work that was done before: what `gateway.jobs.runner.Job` is, for a result of the cache."""

    turn = (0, 0)
    """It waits for no place."""

    def __init__(self, order: UpscaleRequest, request_id: str, result: Result) -> None:
        self.order = order
        self.cancel_token = CancelToken()
        self.request_id = request_id
        self.ticket = self
        self._result = result

    def run(self, watch: Watch = lambda _: None) -> Result:
        """Return the result at once."""
        del watch
        return self._result


class ResultCache:
    """A store of results. The one not asked for longest goes first. Safe to use from several threads."""

    def __init__(self, *, max_bytes: int, max_count: int, max_age_s: float, clock: Clock = time.monotonic) -> None:
        """Keep nothing when `max_bytes` is 0."""
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._max_age_s = max_age_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, Result]] = OrderedDict()
        """By key: (moment of being too old, result), the one asked for last at the end."""
        self._bytes = self._hits = self._misses = 0

    def find(self, order: UpscaleRequest) -> Result | None:
        """Return the result of the same order, under the name that this one asks for; None when there is none."""
        key = cache_key(order)
        began = self._clock()
        with self._lock:
            moment, result = self._kept.get(key, (0.0, None))
            if result is None or moment <= began:
                self._drop(key)
                self._misses += 1
                return None
            self._kept.move_to_end(key)
            self._hits += 1
        return replace(result, filename=order.filename, seconds=0.0, cache="hit")

    def keep(self, order: UpscaleRequest, result: Result) -> None:
        """Keep a result, unless it is larger than the whole cache."""
        size = len(result.data)
        if size > self._max_bytes:
            return
        key = cache_key(order)
        with self._lock:
            self._drop(key)
            self._kept[key] = (self._clock() + self._max_age_s, result)
            self._bytes += size
            while len(self._kept) > self._max_count or self._bytes > self._max_bytes:
                self._drop(next(iter(self._kept)))

    def state(self) -> CacheState:
        """Return what is in it; what is too old goes."""
        now = self._clock()
        with self._lock:
            for key in [key for key, (moment, _) in self._kept.items() if moment <= now]:
                self._drop(key)
            return CacheState(len(self._kept), self._bytes, self._hits, self._misses)

    def _drop(self, key: str) -> None:
        if dropped := self._kept.pop(key, None):
            self._bytes -= len(dropped[1].data)


def cache_key(order: UpscaleRequest) -> str:
    """Return the hash of all that an order's answer follows from."""
    choices = order.choices
    quality = "" if choices.format == "png" else str(choices.quality)  # PNG knows no quality
    named = "\0".join((choices.variant.name, choices.format, quality))
    digest = hashlib.sha256(named.encode() + b"\0")
    digest.update(order.upload.data)
    return digest.hexdigest()
