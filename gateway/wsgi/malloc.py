"""Tunes glibc's malloc: blocks of the size of a band are used again, larger ones return to the system at once."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from pathlib import Path

# Blocks of at least this size are mapped one by one and returned to the system as soon as they are freed. Bands of
# images up to 680 pixels wide are smaller. With 16 MiB, three results of 67 megapixels take 126 MB instead of 75.
LARGE_BLOCK_BYTES = 8 << 20
# Free memory at the end of the heap that is kept.
KEPT_BYTES = 32 << 20
# Seconds between two looks at the memory of this process.
RETURN_INTERVAL_S = 30.0
# Growth since the last time from which free memory is returned. All threads wait meanwhile, and the next requests get
# their pages one by one again: after each return the first image of 64 x 64 took 500 page faults instead of 2, a third
# more CPU time, and one that ran during it 4,300.
RETURNED_GROWTH_BYTES = 32 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc


def tune_malloc() -> None:
    """Use one heap for all threads, and fix its thresholds. Call it before any thread starts; needs glibc.

    By default glibc learns from the first upload of 20 MB that such blocks are common, and keeps them in its arenas,
    one per thread: serving 32 uploads of 20 MB, five at a time, took 343 MB above idle, and 103 MB with a limit of
    1 MiB. But with that limit each band is mapped, and its pages are zeroed, several times on its way: receiving takes
    6.5 ms of CPU time per megapixel instead of 1.0.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def start_returning_memory() -> None:
    """Return free memory to the system now and then, in a thread of its own: also what lies between used blocks."""
    threading.Thread(target=_return_now_and_then, name="malloc-trim", daemon=True).start()


def return_free_memory() -> None:
    """Return all free memory to the system."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def return_growth(resident_bytes: int) -> int:
    """Return free memory if this process has grown since it had `resident_bytes`; return what counts the next time."""
    if (now_bytes := measure_resident_bytes()) - resident_bytes < RETURNED_GROWTH_BYTES:
        return min(resident_bytes, now_bytes)
    return_free_memory()
    return measure_resident_bytes()


def measure_resident_bytes() -> int:
    """Return the memory of this process that is in RAM; 0 without /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _return_now_and_then() -> None:
    resident_bytes = measure_resident_bytes()
    while True:
        time.sleep(RETURN_INTERVAL_S)
        resident_bytes = return_growth(resident_bytes)
