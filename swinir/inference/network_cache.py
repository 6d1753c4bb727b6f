"""The model cache: networks in memory, loaded on first use, evicted least recently used first.

Concurrent requests for one variant cause one load. Each request looks at the file: one that was replaced is loaded
again, and the network of one that was deleted is dropped. A failed load is retried by the next request.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from swinir.errors import InvalidWeightsError, MissingWeightsError
from swinir.inference.memory import is_out_of_memory
from swinir.weights.find import find_weights
from swinir.weights_file import file_version
from swinir.zoo import Variant

log = logging.getLogger(__name__)

Network = TypeVar("Network")


@dataclass(frozen=True)
class _CachedNetwork(Generic[Network]):
    network: Network
    size_bytes: int
    file_version: tuple[str, ...]
    """Path, times, size and inode of the weights file."""


class NetworkCache(Generic[Network]):
    """Networks by name of their variant. Safe to use from several threads.

    Args:
        weights_dir: folder of fetched and imported weights.
        max_bytes: memory of all networks; above it the least recently used is evicted.
        load: returns the network of a variant from its file, ready to run, and its bytes in memory; raises
            InvalidWeightsError, and MemoryError or what `is_out_of_memory` knows.
        free_memory: returns freed memory to the device.
    """

    def __init__(
        self,
        weights_dir: Path | None,
        max_bytes: int,
        load: Callable[[Variant, Path], tuple[Network, int]],
        free_memory: Callable[[], None] = lambda: None,
    ) -> None:
        self.loads = 0
        self.evictions = 0
        self.free_memory = free_memory
        self._weights_dir = weights_dir
        self._max_bytes = max_bytes
        self._load = load
        self._lock = threading.Lock()
        self._cached: OrderedDict[str, _CachedNetwork[Network]] = OrderedDict()

    def get(self, row: Variant) -> Network:
        """Return the network of a variant, loaded when it is not cached; raises WeightsError."""
        with self._lock:  # also during the load, so that concurrent requests wait for it and do not load it twice
            try:
                path = find_weights(row, self._weights_dir)
            except MissingWeightsError:
                self._cached.pop(row.name, None)
                raise
            version = _file_version(path)
            cached = self._cached.get(row.name)
            if cached is None or cached.file_version != version:
                self._cached.pop(row.name, None)
                cached = self._cached[row.name] = self._load_and_evict(row, path, version)
            self._cached.move_to_end(row.name)
            return cached.network

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cached variants, the least recently used first."""
        with self._lock:
            return tuple(self._cached)

    @property
    def size_bytes(self) -> int:
        """Memory of the cached networks: their parameters and the packed copies that serving uses."""
        with self._lock:
            return self._size_bytes()

    def _load_and_evict(self, row: Variant, path: Path, version: tuple[str, ...]) -> _CachedNetwork[Network]:
        try:
            network, size_bytes = self._load(row, path)
        except InvalidWeightsError as error:
            raise InvalidWeightsError(f"{error}. Check it with: superres weights verify {row.name}") from error
        except (RuntimeError, MemoryError) as error:
            if not self._cached or not is_out_of_memory(error):
                raise
            log.warning("out of memory while loading %s: evicting every other variant", row.name)
            self._evict(len(self._cached))
            network, size_bytes = self._load(row, path)
        self.loads += 1
        log.info("loaded %s from %s: %d bytes in memory", row.name, path, size_bytes)
        while self._cached and self._size_bytes() + size_bytes > self._max_bytes:
            self._evict(1)
        return _CachedNetwork(network, size_bytes, version)

    def _evict(self, count: int) -> None:
        for _ in range(count):
            name, cached = self._cached.popitem(last=False)
            self.evictions += 1
            log.info("evicted %s: %d bytes", name, cached.size_bytes)
        self.free_memory()

    def _size_bytes(self) -> int:
        return sum(cached.size_bytes for cached in self._cached.values())


def _file_version(path: Path) -> tuple[str, ...]:
    try:
        return str(path), *map(str, file_version(path))
    except OSError as error:
        raise InvalidWeightsError(f"{path.name} cannot be read: {error.strerror}") from error
