"""Memory: kept from pass to pass, whether an error says that it ran out, whether there is room for an answer."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import torch

GROWTH_BYTES = 1 << 20
"""Least step by which Triton's Python backend enlarges its shared memory (shm-growth-byte-size)."""

KEPT_BYTES = 256 << 20
"""Freed memory that the process keeps for the next pass; three times what a compact tile of 256x256 takes."""
LARGEST_KEPT_BYTES = 32 << 20
"""Of one array: glibc takes no more. Larger ones go back to the system as before."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def keep_freed_memory() -> bool:
    """Have this process keep what a forward pass frees for the next one; false where the C library is not glibc.

    By itself glibc gives it back at once and asks for it again: 10,000 page faults a compact tile of 256x256, 500 so,
    and 6 % of its time (measured, docs/measurements/benchmarks.md). To be called before threads are started: each that
    has allocated by then goes on in an arena of its own.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    wanted = {_M_ARENA_MAX: 1, _M_MMAP_THRESHOLD: LARGEST_KEPT_BYTES, _M_TRIM_THRESHOLD: KEPT_BYTES}
    taken = [mallopt(option, value) == 1 for option, value in wanted.items()]  # each is tried, also after a refusal
    return all(taken)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: CUDA has a class for it, the CPU's allocator only words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


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
