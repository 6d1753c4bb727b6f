"""Memory of a forward pass: kept for the next pass, and which errors mean that memory ran out."""

from __future__ import annotations

import ctypes

import torch

# Freed memory that the process keeps for the next pass: three times the peak of a compact tile of 256x256.
KEPT_BYTES = 256 << 20
# Largest single array that is kept: glibc accepts no larger threshold. Larger arrays go back to the system.
LARGEST_KEPT_BYTES = 32 << 20
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
