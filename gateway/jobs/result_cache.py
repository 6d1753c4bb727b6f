"""The result cache: results by the content of their uploads, in memory, bounded by bytes, count and age.

The key is a hash of everything that determines the result: the upload's bytes (pixels, alpha, colour profile,
orientation and frames are in them), variant, version of its weights and all other options. Two uploads that
differ in one byte are two entries: comparing their pixels would mean decoding both. The client is not part of the key,
so all clients share the cache.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from cachetools import TTLCache

from gateway.cancellation import CancelToken
from gateway.jobs.job import OnProgress, Result, ignore_progress
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.phases import PhaseTimer
from gateway.jobs.queue import RUNNING, QueuePosition
from preprocessing.content import Content
from swinir.auto import AUTO, GreyReason

# A content is a few hundred bytes, a result some megabytes: the contents outlive the results.
CONTENTS_PER_RESULT = 16


@dataclass(frozen=True)
class CacheStats:
    """The size of the cache, and its hits and misses so far."""

    count: int
    n_bytes: int
    hits: int
    misses: int


class CachedJob:
    """A `gateway.jobs.job.Job` whose result was in the cache."""

    position: QueuePosition = RUNNING
    bands_done = 0
    gpu_s = 0.0
    counts_image = False

    def __init__(self, request: UpscaleRequest, request_id: str, result: Result) -> None:
        self.request = request.with_strength(result.strength) if result.strength else request
        self.request_id = request_id
        self.cancel_token = CancelToken()
        self.phases = PhaseTimer(first=None)
        self._result = result

    def run(self, on_progress: OnProgress = ignore_progress) -> Result:
        """Return the cached result."""
        del on_progress
        return self._result


class ResultCache:
    """A cache that drops the least recently used result first. Safe to use from several threads."""

    def __init__(
        self, *, max_bytes: int, max_count: int, max_age_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create a cache; with `max_bytes` 0 it keeps nothing."""
        self._max_count = max_count
        self._lock = threading.Lock()
        self._results: TTLCache[str, Result] = TTLCache(
            max_bytes, max_age_s, timer=clock, getsizeof=lambda result: len(result.data)
        )
        # What uploads show, by hash: a choice of the variant then finds the result without decoding the upload again.
        self._contents: TTLCache[bytes, Content] = TTLCache(CONTENTS_PER_RESULT * max_count, max_age_s, timer=clock)
        self._grey_reasons: TTLCache[tuple[bytes, str], GreyReason] = TTLCache(
            CONTENTS_PER_RESULT * max_count, max_age_s, timer=clock
        )
        self._hits = self._misses = 0

    def recall(self, request: UpscaleRequest) -> UpscaleRequest:
        """Return a request with the variant that the image chooses, if the same upload was looked at before."""
        if request.options.grey_variant is not None:
            with self._lock:
                self._grey_reasons.expire()
                reason = self._grey_reasons.get((_upload_hash(request), request.options.variant.task))
            return request.with_grey_variant(reason) if reason else request
        if not request.options.must_choose:
            return request
        with self._lock:
            self._contents.expire()
            content = self._contents.get(_upload_hash(request))
        return request if content is None else request.choose(content)

    def get(self, request: UpscaleRequest) -> Result | None:
        """Return the result of an equal request, with the file name that this request asks for; None on a miss."""
        key = cache_key(request)
        with self._lock:
            self._results.expire()  # frees their memory: a look-up alone does not
            result = self._results.get(key)
            if result is None:
                self._misses += 1
                return None
            self._hits += 1
        return replace(result, filename=request.filename, seconds=0.0, cache="hit")

    def has(self, request: UpscaleRequest) -> bool:
        """Return whether the result of an equal request is stored. Counts neither a hit nor a miss."""
        key = cache_key(request)
        with self._lock:
            self._results.expire()
            return key in self._results

    def put(self, request: UpscaleRequest, result: Result) -> None:
        """Store a result, unless it alone is larger than the cache, and what chose the variant for the upload."""
        options = request.options
        if self._results.maxsize and options.content:
            with self._lock:
                self._contents[_upload_hash(request)] = options.content
        if self._results.maxsize and options.replaced and options.grey_reason:
            with self._lock:
                self._grey_reasons[_upload_hash(request), options.replaced.task] = options.grey_reason
        if len(result.data) > self._results.maxsize:
            return
        key = cache_key(request)
        with self._lock:
            self._results.pop(key, None)
            while len(self._results) >= self._max_count:
                self._results.popitem()
            self._results[key] = result

    def forget(self, data: bytes) -> None:
        """Drop every result with these bytes, because a client has deleted its copy."""
        with self._lock:
            for key in [key for key, result in self._results.items() if result.data == data]:
                del self._results[key]

    def forget_keys(self, keys: Iterable[str]) -> None:
        """Drop the results with these keys (`cache_key`)."""
        with self._lock:
            for key in keys:
                self._results.pop(key, None)

    def stats(self) -> CacheStats:
        """Return the size of the cache, without expired results, and its hits and misses."""
        with self._lock:
            return CacheStats(len(self._results), int(self._results.currsize), self._hits, self._misses)


def _upload_hash(request: UpscaleRequest) -> bytes:
    return hashlib.sha256(request.upload.data).digest()


def cache_key(request: UpscaleRequest) -> str:
    """Return the hash of everything that determines the result of a request."""
    options = request.options
    named = (
        options.variant.name,
        options.weights_version,
        *options.output.cache_key(),
        AUTO if options.chooses_strength else str(options.strength_percent),  # that of an upload is always the same
        f"{request.width}x{request.height}",  # `scale=2` and the `width` that gives the same size share a result
        options.metadata,
        str(options.has_provenance),
        options.transparent_colour,
    )
    digest = hashlib.sha256("\0".join(named).encode() + b"\0")
    digest.update(request.upload.data)
    return digest.hexdigest()
