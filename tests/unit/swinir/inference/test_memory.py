"""The specification of swinir.inference.memory; what counts as an error of memory is specified beside the engine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from swinir.inference.memory import GROWTH_BYTES, SharedMemoryBudget, free_shm_bytes

FREE = 5_000_000
COUNT_FAULTS = """
import ctypes, resource, sys, threading
import numpy as np
from swinir.inference.engine import Engine
from swinir.inference.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
else:  # where glibc begins, and stays once asked: left alone it adapts, some runs less than others
    assert ctypes.CDLL(None).mallopt(-3, 128 << 10) == 1

def restore():  # in a thread of its own, as in the lane
    engine, tiles = Engine(device="cpu"), np.zeros((1, 128, 128, 3), np.uint8)
    for _ in range(4):
        engine.restore(tiles, "compact_x4")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    engine.restore(tiles, "compact_x4")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=restore)
thread.start()
thread.join()
"""


def test_an_answer_for_which_there_is_no_room_is_refused_with_both_numbers() -> None:
    room = SharedMemoryBudget(lambda: FREE + GROWTH_BYTES)
    room.check(FREE)
    with pytest.raises(MemoryError, match=f"takes {FREE + 1} bytes of shared memory; /dev/shm has room for {FREE}"):
        room.check(FREE + 1)


def test_what_fitted_once_fits_again_though_nothing_is_free() -> None:
    """What Triton has grown to is in use to everybody else."""
    left = [FREE + GROWTH_BYTES]
    room = SharedMemoryBudget(lambda: left[0])
    room.check(FREE)
    room.note(FREE)
    left[0] = 0
    room.check(FREE)
    with pytest.raises(MemoryError, match="has room for 0"):
        room.check(FREE + 1)


def test_this_machine_has_shared_memory_that_can_be_asked() -> None:
    assert free_shm_bytes() > 0


@pytest.mark.slow
def test_a_pass_takes_its_memory_from_the_one_before() -> None:
    """A page fault is 4 kB that the system has to clear: what is kept costs none."""
    given_back, kept = (count_faults(how) for how in ("give back", "keep"))
    assert given_back > 1000
    assert kept < given_back / 20


def count_faults(how: str) -> int:
    command = [sys.executable, "-c", COUNT_FAULTS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
