"""gateway.wsgi.malloc: memory of bands is used again, and that of uploads returns to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource
from pathlib import Path
from gateway.wsgi.malloc import LARGE_BLOCK_BYTES, return_free_memory, tune_malloc

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

tune_malloc()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def use(size, count=1):
    blocks = [libc.malloc(size) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks:
        libc.free(block)

use(LARGE_BLOCK_BYTES // 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    use(LARGE_BLOCK_BYTES // 2)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
idle = resident_bytes()
use(2 * LARGE_BLOCK_BYTES, 8)
use(LARGE_BLOCK_BYTES // 8, 150)
return_free_memory()
print(faults, resident_bytes() - idle)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
def test_bands_are_used_again_and_uploads_are_returned() -> None:
    printed = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    faults, kept_bytes = map(int, printed.split())

    assert faults < 2_000, "50 blocks of 4 MiB have 51,200 pages"
    assert kept_bytes < 16 << 20, "of 278 MiB"


GROWTH_PROGRAM = """
import ctypes
from gateway.wsgi.malloc import RETURNED_GROWTH_BYTES, measure_resident_bytes, return_growth, tune_malloc

tune_malloc()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def grow(size):
    blocks = [libc.malloc(1 << 20) for _ in range(size >> 20)]
    for block in blocks:
        ctypes.memset(block, 1, 1 << 20)
    top = libc.malloc(1 << 20)  # so that nothing is free at the end of the heap, which free() returns by itself
    for block in blocks:
        libc.free(block)

start = measure_resident_bytes()
grow(RETURNED_GROWTH_BYTES // 2)
print(return_growth(start) == start, measure_resident_bytes() - start)
grow(2 * RETURNED_GROWTH_BYTES)
counted = return_growth(start)
print(counted == measure_resident_bytes(), counted - start, return_growth(counted + (1 << 30)) - counted)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
def test_free_memory_is_returned_once_the_process_has_grown() -> None:
    printed = subprocess.run([sys.executable, "-c", GROWTH_PROGRAM], capture_output=True, text=True, check=True).stdout
    is_unchanged, kept, is_counted, left, shrunk = printed.split()

    assert (is_unchanged, is_counted) == ("True", "True")
    assert int(kept) > 12 << 20, "of 16 MiB: little growth stays"
    assert int(left) < 16 << 20, "of 64 MiB: all of it is returned"
    assert abs(int(shrunk)) < 4 << 20, "a process that has shrunk may grow by as much again"
