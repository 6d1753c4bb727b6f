"""Shared memory through which Triton's Python backend sends responses: how much is free, how much one may take."""

from __future__ import annotations

import os
from collections.abc import Callable

# Smallest step by which Triton's Python backend enlarges its shared memory (shm-growth-byte-size).
GROWTH_BYTES = 1 << 20


def free_shm_bytes() -> int:
    """Return what is free in shared memory."""
    found = os.statvfs("/dev/shm")  # noqa: S108 - no file of ours: where Triton's Python backend keeps its tensors
    return found.f_bavail * found.f_frsize


class SharedMemoryBudget:
    """The shared memory that answers go through: it grows for the largest and never shrinks, so that one fits again."""

    def __init__(self, free_bytes: Callable[[], int] = free_shm_bytes) -> None:
        self._free_bytes = free_bytes
        self._largest = 0

    def check(self, size_bytes: int) -> None:
        """Raise MemoryError for an answer larger than any before, with less than its size free."""
        free = self._free_bytes() - GROWTH_BYTES
        if size_bytes > max(self._largest, free):
            raise MemoryError(
                f"the answer takes {size_bytes} bytes of shared memory; /dev/shm has room for {max(free, 0)}. "
                "Send a smaller image, or give Triton more of it (--shm-size)"
            )

    def note(self, size_bytes: int) -> None:
        """Take note of an answer that fitted."""
        self._largest = max(self._largest, size_bytes)
