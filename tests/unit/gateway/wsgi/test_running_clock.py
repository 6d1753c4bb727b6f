"""The clock that stands still while the process is frozen."""

from __future__ import annotations

import pytest

from gateway.wsgi.running_clock import MAX_STEP_S, RunningClock
from testing.clock import ManualClock


def test_clock_counts_what_passes_between_readings(clock: ManualClock) -> None:
    running = RunningClock(clock)
    for _ in range(10):
        clock.now += 1
        running()

    assert running() == pytest.approx(10)


def test_freeze_does_not_count(clock: ManualClock) -> None:
    """36 s without CPU, as between two requests at a provider that bills by the request."""
    running = RunningClock(clock)
    clock.now += 1
    before = running()
    clock.now += 36

    assert running() - before == pytest.approx(MAX_STEP_S)
