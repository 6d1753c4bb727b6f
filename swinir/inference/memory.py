"""Memory of a forward pass: kept for the next pass, and which errors mean that memory ran out. Imports no torch."""

from __future__ import annotations

import ctypes
import sys

# Freed memory that the process keeps for the next pass: three times the peak of a compact tile of 256x256.
KEPT_BYTES = 256 << 20
# Largest single array that is kept: glibc accepts no larger threshold. Larger arrays go back to the system.
LARGEST_KEPT_BYTES = 32 << 20
# The same for the compiled engine, whose pass has three larger arrays: without them it keeps 20 MB less after a compact
# tile of 256x256, and the next one takes 1 to 2 % longer. PyTorch's pass has dozens.
LARGEST_KEPT_COMPILED_BYTES = 8 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def keep_freed_memory(largest_bytes: int = LARGEST_KEPT_BYTES) -> bool:
    """Keep memory that a forward pass frees for the next pass; false when the C library is not glibc.

    Arrays of ``largest_bytes`` and more are returned to the system.

    By default glibc returns it to the system at once and requests it again: 10,000 page faults per 256 x 256 tile of a
    compact network instead of 500, and 6 % of the time (docs/measurements/benchmarks.md). Call it before threads start:
    a thread that has already allocated keeps its own arena.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    options = {_M_ARENA_MAX: 1, _M_MMAP_THRESHOLD: largest_bytes, _M_TRIM_THRESHOLD: KEPT_BYTES}
    accepted = [mallopt(option, value) == 1 for option, value in options.items()]  # tries each, also after a failure
    return all(accepted)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out: CUDA has a class for it, the CPU allocator only a message."""
    torch = sys.modules.get("torch")  # not imported here: without torch nothing raises its errors
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
