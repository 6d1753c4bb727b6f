"""Copies of tiles to a device and of results back: plainly, or through pinned memory while the GPU computes.

A pass is queued on the current stream. Uploads and downloads have streams of their own, so the tiles of the next
micro-batch arrive, and the results of the last one leave, while one runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from swinir.checks import Rows
from swinir.inference.engine import Tiles
from swinir.inference.tile_pass import PassOutput

log = logging.getLogger(__name__)

# Micro-batches on their way at once, each with its own pinned memory: one runs, one is uploaded or downloaded.
MAX_RUNNING = 2
# Maximum pinned bytes of a micro-batch in one direction: five times the results of 4 tiles of 256 x 256 at 4x. Results
# that are larger are copied without pinned memory, which the operating system cannot use for anything else.
MAX_PINNED_BYTES = 64 << 20

# Waits for a result and writes it into tiles and their rows of checks.
Collect = Callable[[Tiles, Rows], None]


class CopyDone(Protocol):
    """The end of a copy; `torch.cuda.Event` is one."""

    def synchronize(self) -> None:
        """Wait for it."""


class TileCopies:
    """Copies that are complete, or in order with the pass, when a call returns."""

    max_running = 1

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def upload(self, tiles: Tiles) -> Tensor:
        """Return tiles on the device. They may share memory."""
        return torch.from_numpy(tiles if tiles.flags.writeable else tiles.copy()).to(self._device)  # torch would warn

    def download(self, output: PassOutput) -> Collect:
        """Return what writes a result into arrays of its shape."""

        def collect(out: Tiles, checks: Rows) -> None:
            torch.from_numpy(out).copy_(output.levels)
            torch.from_numpy(checks).copy_(output.rows)

        return collect

    def clear(self) -> None:
        """Drop memory that is kept for later copies."""


class CopyStreams:
    """Streams of CUDA for uploads and downloads."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._up, self._down = torch.cuda.Stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def pin(self, size_bytes: int) -> Tensor:
        """Return pinned memory of the host; raises RuntimeError."""
        return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)

    def upload(self, source: Tensor) -> tuple[Tensor, CopyDone]:
        """Return a copy of pinned memory that the current stream waits for, and when the source may change again."""
        current = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._up):
            target = torch.empty_like(source, device=self._device, pin_memory=False)
            target.copy_(source, non_blocking=True)
            done = self._up.record_event()
        current.wait_event(done)
        target.record_stream(current)  # its memory is not used again before the pass has read it
        return target, done

    def download(self, copies: Sequence[tuple[Tensor, Tensor]]) -> CopyDone:
        """Copy each (pinned target, source) after what the current stream has to do until now."""
        ready = torch.cuda.current_stream(self._device).record_event()
        with torch.cuda.stream(self._down):
            self._down.wait_event(ready)
            for target, source in copies:
                target.copy_(source, non_blocking=True)
                source.record_stream(self._down)
            return self._down.record_event()


@dataclass
class _Slot:
    """Pinned memory of one micro-batch on its way."""

    buffers: dict[str, Tensor] = field(default_factory=dict)
    last_copy: CopyDone | None = None


class PinnedCopies(TileCopies):
    """Copies through pinned memory, for one thread; plain ones where it cannot be had, with one line in the log."""

    def __init__(self, device: torch.device, streams: CopyStreams) -> None:
        super().__init__(device)
        self.max_running = MAX_RUNNING
        self._streams = streams
        self._slots = [_Slot() for _ in range(MAX_RUNNING)]
        self._current = self._slots[0]

    def upload(self, tiles: Tiles) -> Tensor:
        """Begin to copy tiles to the device, and return what the current stream may use after this call."""
        self._slots.append(self._slots.pop(0))
        self._current = self._slots[0]
        if self._current.last_copy is not None:
            self._current.last_copy.synchronize()  # of a result that nobody collected; else it is complete
        pinned = self._pinned("tiles", tiles.shape, torch.uint16 if tiles.dtype == np.uint16 else torch.uint8)
        if pinned is None:
            return super().upload(tiles)
        np.copyto(pinned.numpy(), tiles)
        on_device, self._current.last_copy = self._streams.upload(pinned)
        return on_device

    def download(self, output: PassOutput) -> Collect:
        """Begin to copy a result back; what is returned waits for it."""
        pinned = [self._pinned(name, each.shape, each.dtype) for name, each in zip(output._fields, output, strict=True)]
        levels, rows = pinned
        if levels is None or rows is None:
            return super().download(output)
        slot, done = self._current, self._streams.download([(levels, output.levels), (rows, output.rows)])
        slot.last_copy = done

        def collect(out: Tiles, checks: Rows) -> None:
            done.synchronize()
            slot.last_copy = None
            np.copyto(out, levels.numpy())
            np.copyto(checks, rows.numpy())

        return collect

    def clear(self) -> None:
        """Drop the pinned memory; PyTorch reuses it once copies that still run have ended."""
        for slot in self._slots:
            slot.buffers.clear()

    def _pinned(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
        """Return pinned memory of the current slot under this name, or None where there is none."""
        size_bytes = int(np.prod(shape)) * dtype.itemsize
        if self.max_running == 1 or size_bytes > MAX_PINNED_BYTES:
            return None
        buffer = self._current.buffers.get(name)
        if buffer is None or len(buffer) < size_bytes:
            try:
                buffer = self._current.buffers[name] = self._streams.pin(size_bytes)
            except (RuntimeError, MemoryError) as error:
                log.warning("tiles are copied without pinned memory: %s", error)
                self.max_running = 1
                self.clear()
                return None
        return buffer[:size_bytes].view(dtype).view(*shape)
