"""Shared memory (/dev/shm) through which Triton's Python backend sends responses: free bytes, and the budget."""

from __future__ import annotations

import os
from collections.abc import Callable

# Minimum step by which Triton's Python backend enlarges its shared memory (shm-growth-byte-size).
GROWTH_BYTES = 1 << 20


def free_shm_bytes() -> int:
    """Return the free bytes in shared memory."""
    status = os.statvfs("/dev/shm")  # noqa: S108 - Triton's Python backend keeps its tensors there; we create no file
    return status.f_bavail * status.f_frsize


class SharedMemoryBudget:
    """Limits a response to the free shared memory.

    Triton grows the memory for the largest response and never shrinks it, so a response of that size fits again.
    """

    def __init__(self, free_bytes: Callable[[], int] = free_shm_bytes) -> None:
        self._free_bytes = free_bytes
        self._largest = 0

    def check(self, size_bytes: int) -> None:
        """Raise MemoryError for a response larger than any before when less than its size is free."""
        free = self._free_bytes() - GROWTH_BYTES
        if size_bytes > max(self._largest, free):
            raise MemoryError(
                f"The response needs {size_bytes} bytes of shared memory; /dev/shm has {max(free, 0)} free. "
                "Send a smaller image, or give Triton more shared memory (--shm-size)."
            )

    def record(self, size_bytes: int) -> None:
        """Record the size of a response that was sent."""
        self._largest = max(self._largest, size_bytes)
