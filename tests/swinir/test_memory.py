"""The specification of swinir.memory; what counts as an error of memory is specified beside the engine."""

from __future__ import annotations

import pytest

from swinir.memory import GROWTH_BYTES, Room, free_shm_bytes

FREE = 5_000_000


def test_an_answer_for_which_there_is_no_room_is_refused_with_both_numbers() -> None:
    room = Room(lambda: FREE + GROWTH_BYTES)
    room.check(FREE)
    with pytest.raises(MemoryError, match=f"takes {FREE + 1} bytes of shared memory; /dev/shm has room for {FREE}"):
        room.check(FREE + 1)


def test_what_fitted_once_fits_again_though_nothing_is_free() -> None:
    """What Triton has grown to is in use to everybody else."""
    left = [FREE + GROWTH_BYTES]
    room = Room(lambda: left[0])
    room.check(FREE)
    room.note(FREE)
    left[0] = 0
    room.check(FREE)
    with pytest.raises(MemoryError, match="has room for 0"):
        room.check(FREE + 1)


def test_this_machine_has_shared_memory_that_can_be_asked() -> None:
    assert free_shm_bytes() > 0
