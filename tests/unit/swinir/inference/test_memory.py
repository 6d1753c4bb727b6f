"""Memory that is kept from pass to pass; which errors mean that memory ran out is tested with the engine."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT_FAULTS = """
import ctypes, resource, sys, threading
import numpy as np
from swinir.inference.torch_engine import TorchEngine
from swinir.inference.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
else:  # where glibc begins, and stays once asked: left alone it adapts, some runs less than others
    assert ctypes.CDLL(None).mallopt(-3, 128 << 10) == 1

def restore():  # in a separate thread, like large jobs
    engine, tiles = TorchEngine(device="cpu"), np.zeros((1, 128, 128, 3), np.uint8)
    for _ in range(4):
        engine.restore(tiles, "compact_x4")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    engine.restore(tiles, "compact_x4")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=restore)
thread.start()
thread.join()
"""


MEASURE_KEPT = """
import threading
import numpy as np
from pathlib import Path
from swinir.inference.compiled_engine import CompiledEngine
from swinir.network.library import compile_library, load_library

def measure_bytes():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

compile_library()
engine = CompiledEngine(load_library(), threads=1)
engine.warm_up("compact_x4")
before = measure_bytes()
thread = threading.Thread(target=lambda: engine.restore(np.zeros((1, 256, 256, 3), np.uint8), "compact_x4"))
thread.start()
thread.join()
print(measure_bytes() - before)
"""


@pytest.mark.slow
def test_pass_reuses_the_memory_of_the_last() -> None:
    """Each page fault makes the system clear 4 kB; kept memory causes none."""
    given_back, kept = (count_faults(how) for how in ("give back", "keep"))
    assert given_back > 1000
    assert kept < given_back / 20


def count_faults(how: str) -> int:
    command = [sys.executable, "-c", COUNT_FAULTS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
def test_compiled_engine_keeps_no_large_array() -> None:
    """An array of features of a compact tile of 256x256 has 12.6 MB."""
    done = subprocess.run([sys.executable, "-c", MEASURE_KEPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10e6
