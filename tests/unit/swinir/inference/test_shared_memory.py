"""Shared memory for responses: checked against what is free, never below the largest that fitted."""

from __future__ import annotations

import pytest

from swinir.inference.shared_memory import GROWTH_BYTES, SharedMemoryBudget, free_shm_bytes

FREE = 5_000_000


def test_response_over_free_memory_is_rejected_with_both_numbers() -> None:
    budget = SharedMemoryBudget(lambda: FREE + GROWTH_BYTES)
    budget.check(FREE)
    with pytest.raises(MemoryError, match=f"needs {FREE + 1} bytes of shared memory; /dev/shm has {FREE} free"):
        budget.check(FREE + 1)


def test_size_that_fitted_once_fits_again() -> None:
    """Triton reuses the shared memory that it has grown to, although the system counts it as used."""
    left = [FREE + GROWTH_BYTES]
    budget = SharedMemoryBudget(lambda: left[0])
    budget.check(FREE)
    budget.record(FREE)
    left[0] = 0
    budget.check(FREE)
    with pytest.raises(MemoryError, match="has 0 free"):
        budget.check(FREE + 1)


def test_free_shared_memory_of_this_machine_is_positive() -> None:
    assert free_shm_bytes() > 0
