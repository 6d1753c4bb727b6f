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
