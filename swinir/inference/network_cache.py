"""The shelf: the networks held in memory, loaded on first use, the least recently used put away when room is short.

One load however many ask. A file that was replaced is loaded anew; a load that failed is tried again when next asked.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from swinir.errors import InvalidWeightsError
from swinir.inference.memory import is_out_of_memory
from swinir.network.swinir import SwinIR
from swinir.weights.load import find_weights, load_network
from swinir.zoo import Variant

log = logging.getLogger(__name__)

Load = Callable[[Variant, Path, torch.device], SwinIR]


@dataclass(frozen=True)
class _Held:
    network: SwinIR
    size_bytes: int
    stamp: tuple[str, int, int]
    """Path, time of change and length of the file it came from."""


class NetworkCache:
    """Networks by the name of their variant. Safe to use from several threads."""

    def __init__(
        self, weights_dir: Path | None, device: torch.device, max_bytes: int, load: Load = load_network
    ) -> None:
        self.loads = 0
        self.evictions = 0
        self._weights_dir = weights_dir
        self._device = device
        self._max_bytes = max_bytes
        self._load = load
        self._lock = threading.Lock()
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def take(self, row: Variant) -> SwinIR:
        """Return the network of a variant, loading it if need be; raises WeightsError."""
        with self._lock:  # held during the load: whoever asks meanwhile finds it done
            path = find_weights(row, self._weights_dir)
            stamp = _stamp(path)
            held = self._held.get(row.name)
            if held is None or held.stamp != stamp:
                self._held.pop(row.name, None)
                held = self._held[row.name] = self._fill(row, path, stamp)
            self._held.move_to_end(row.name)
            return held.network

    @property
    def names(self) -> tuple[str, ...]:
        """What is held, the least recently used first."""
        with self._lock:
            return tuple(self._held)

    @property
    def size_bytes(self) -> int:
        """Memory of the weights held, and of what is kept made of them."""
        with self._lock:
            return self._size_bytes()

    def _fill(self, row: Variant, path: Path, stamp: tuple[str, int, int]) -> _Held:
        try:
            network, size_bytes = self._load_and_prepare(row, path)
        except (RuntimeError, MemoryError) as error:
            if not self._held or not is_out_of_memory(error):
                raise
            log.warning("no memory left to load %s: putting every other variant away", row.name)
            self._put_away(len(self._held))
            network, size_bytes = self._load_and_prepare(row, path)
        self.loads += 1
        log.info("loaded %s from %s: %d bytes in memory", row.name, path, size_bytes)
        while self._held and self._size_bytes() + size_bytes > self._max_bytes:
            self._put_away(1)
        return _Held(network, size_bytes, stamp)

    def _load_and_prepare(self, row: Variant, path: Path) -> tuple[SwinIR, int]:
        network = self._load(row, path, self._device)
        return network, network.prepare()

    def _put_away(self, count: int) -> None:
        for _ in range(count):
            name, held = self._held.popitem(last=False)
            self.evictions += 1
            log.info("put %s away: %d bytes", name, held.size_bytes)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _size_bytes(self) -> int:
        return sum(held.size_bytes for held in self._held.values())


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidWeightsError(f"{path.name} cannot be read: {error.strerror}") from error
    return str(path), status.st_mtime_ns, status.st_size
