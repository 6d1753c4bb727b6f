"""The phases of a job: every second belongs to one, and waiting for a booting backend is boot, not work."""

from __future__ import annotations

import pytest

from gateway.backend.state import BackendStateTracker, StateName
from gateway.jobs.phases import PhaseTimer, booting_s, round_phases
from testing.clock import ManualClock


def test_seconds_add_up_over_alternating_phases(clock: ManualClock) -> None:
    timer = PhaseTimer(clock, BackendStateTracker(clock=clock).recent_states)
    clock.now += 2.0
    timer.enter("decode")
    clock.now += 0.5
    for _ in range(3):
        timer.enter("work", waits_for_backend=True)
        clock.now += 4.0
        timer.enter("encode")
        clock.now += 1.0
    assert timer.seconds() == {"queue": 2.0, "decode": 0.5, "work": 12.0, "encode": 3.0}
    timer.end()
    clock.now += 100.0

    assert timer.seconds() == {"queue": 2.0, "decode": 0.5, "work": 12.0, "encode": 3.0}


def test_waiting_for_a_booting_backend_is_boot(clock: ManualClock) -> None:
    tracker = BackendStateTracker(clock=clock)
    timer = PhaseTimer(clock, tracker.recent_states)
    tracker.begin_boot()
    clock.now += 3.0  # the backend boots while the job still waits in the queue
    timer.enter("work", waits_for_backend=True)
    clock.now += 5.0
    assert timer.seconds() == {"queue": 3.0, "boot": 5.0, "work": 0.0}, "read while it boots"
    tracker.mark_up()
    clock.now += 2.0
    timer.enter("encode")
    timer.enter("work", waits_for_backend=True)
    clock.now += 1.0
    tracker.mark_asleep()
    tracker.begin_boot()  # it died, and another one boots
    clock.now += 4.0
    timer.end()

    assert timer.seconds() == {"queue": 3.0, "boot": 9.0, "work": 3.0, "encode": 0.0}


def test_work_without_the_backend_is_never_boot(clock: ManualClock) -> None:
    tracker = BackendStateTracker(clock=clock)
    timer = PhaseTimer(clock, tracker.recent_states)
    tracker.begin_boot()
    timer.enter("work")
    clock.now += 2.0

    assert timer.seconds() == {"queue": 0.0, "work": 2.0}


@pytest.mark.parametrize(
    ("states", "within_s", "expected"),
    [
        ([("asleep", 50.0)], 10.0, 0.0),
        ([("asleep", 50.0), ("booting", 20.0), ("up", 5.0)], 10.0, 5.0),
        ([("asleep", 50.0), ("booting", 20.0), ("up", 5.0)], 4.0, 0.0),
        ([("asleep", 50.0), ("booting", 20.0)], 10.0, 10.0),
        ([("booting", 9.0), ("up", 8.0), ("asleep", 4.0), ("booting", 3.0), ("up", 1.0)], 10.0, 3.0),
    ],
)
def test_booting_seconds_overlap_the_wait(
    states: list[tuple[StateName, float]], within_s: float, expected: float
) -> None:
    assert booting_s(states, within_s) == expected


def test_log_has_phases_in_order_and_milliseconds() -> None:
    assert list(round_phases({"encode": 0.12345, "queue": 1.0}).items()) == [("queue_s", 1.0), ("encode_s", 0.123)]
