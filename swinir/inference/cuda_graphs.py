"""CUDA graphs: a pass over tiles is recorded once per shape of them and then started as a whole.

A small tile takes as long as its kernels take to be started one by one; a graph starts them with one call.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from swinir.inference.memory import is_out_of_memory
from swinir.inference.tile_pass import PassOutput, agree
from swinir.network.swinir import SwinIR
from swinir.network.windows import WindowOrders

log = logging.getLogger(__name__)

# Maximum difference of a graph's tiles, in 0..1, from those of the pass that it recorded. Libraries may choose another
# algorithm for the same product; bfloat16 alone has 0.004.
TOLERANCE = 0.02

# What can be recorded, and what a cache records: a pass over tiles [N, H, W, 3].
Recordable = Callable[[Tensor], tuple[Tensor, ...]]
TilePass = Callable[[Tensor], PassOutput]
_Key = tuple["weakref.ref[SwinIR]", torch.Size, torch.dtype]


class Captured(Protocol):
    """A recorded pass."""

    size_bytes: int
    """Memory that it holds for its intermediate values."""

    def run(self, given: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for an input of the recorded shape and type."""


class CudaGraph:
    """A pass that CUDA recorded; it runs on the memory that it was recorded with."""

    def __init__(self, forward: Recordable, given: Tensor) -> None:
        self._input = given.clone()
        stream, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(stream)
        with torch.cuda.stream(side):
            forward(self._input)  # creates what libraries allocate at their first call, which cannot be recorded
        stream.wait_stream(side)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = forward(self._input)
        self.size_bytes = torch.cuda.memory_reserved() - before + self._input.nbytes

    def run(self, given: Tensor) -> tuple[Tensor, ...]:
        """Return copies of the outputs, because the next run overwrites them."""
        self._input.copy_(given)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)


class GraphCache:
    """Graphs by network, shape and type of tiles, up to a limit of memory; the least recently used goes first."""

    def __init__(self, max_bytes: int, capture: Callable[[TilePass, Tensor], Captured] = CudaGraph) -> None:
        self._max_bytes = max_bytes
        self._capture = capture
        self._lock = (
            threading.RLock()
        )  # of graphs, which use the same memory in each run; a callback of gc takes it too
        self._graphs: OrderedDict[_Key, tuple[Captured, tuple[WindowOrders, object]]] = OrderedDict()
        # Tiles that a network had once. The second time their pass is recorded, so that rare shapes cost nothing.
        self._seen: set[_Key] = set()
        self._rejected: set[_Key] = set()
        self._is_disabled = False

    @property
    def size_bytes(self) -> int:
        """Memory of all graphs."""
        with self._lock:
            return sum(graph.size_bytes for graph, _ in list(self._graphs.values()))

    def run(self, network: SwinIR, tiles: Tensor, run_pass: TilePass, read: object = None) -> PassOutput:
        """Return ``run_pass(tiles)``, by a graph where there is one; records it if it can.

        ``read`` holds what the pass reads on the GPU, apart from the network, and is kept as long as the graph. The
        network is not kept, so neither is ``run_pass``.
        """
        key = (weakref.ref(network, self._forget), tiles.shape, tiles.dtype)
        with self._lock:
            if key not in self._graphs and not self._record(key, network, tiles, run_pass, read):
                self._seen.add(key)
                return run_pass(tiles)
            self._graphs.move_to_end(key)
            return PassOutput(*self._graphs[key][0].run(tiles))

    def clear(self) -> None:
        """Drop all graphs and their memory."""
        with self._lock:
            self._graphs.clear()

    def _record(self, key: _Key, network: SwinIR, tiles: Tensor, run_pass: TilePass, read: object) -> bool:
        if self._is_disabled or key not in self._seen or key in self._rejected:
            return False
        images = tiles.permute(0, 3, 1, 2)
        orders = network.orders_of(images)  # kept with the graph, which reads them at the same address in each run
        try:
            graph = self._capture(run_pass, tiles)
            if not agree(PassOutput(*graph.run(tiles)), run_pass(tiles), TOLERANCE):
                raise RuntimeError(f"its output differs by more than {TOLERANCE}")  # noqa: TRY301 - logged as the others
        except RuntimeError as error:
            self.clear()
            if is_out_of_memory(error):
                self._rejected.add(key)
            else:
                self._is_disabled = True
            log.warning("passes of %s run without a CUDA graph: %s", tuple(tiles.shape), error)
            return False
        if graph.size_bytes > self._max_bytes or network.orders_of(images) is not orders:
            self._rejected.add(key)
            return False
        self._graphs[key] = graph, (orders, read)
        while self.size_bytes > self._max_bytes:
            self._graphs.popitem(last=False)
        return True

    def _forget(self, network: weakref.ref[SwinIR]) -> None:
        """Drop what belongs to a network that was evicted from memory."""
        with self._lock:
            for key in [key for key in self._graphs if key[0] is network]:
                del self._graphs[key]
            for keys in (self._seen, self._rejected):
                keys.difference_update([key for key in keys if key[0] is network])
