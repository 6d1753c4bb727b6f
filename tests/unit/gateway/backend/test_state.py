"""The backend's state tracker and the cancel token."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from gateway.backend.state import BOOT_LIMIT_S, MAX_BOOTS, MAX_STATES, BackendStateTracker
from gateway.cancellation import CancelledError, CancelToken
from testing.clock import ManualClock


def boot(tracker: BackendStateTracker, clock: ManualClock, seconds: float) -> None:
    tracker.mark_asleep()
    tracker.begin_boot()
    clock.now += seconds
    tracker.mark_up()


def test_backend_sleeps_then_boots_then_is_up() -> None:
    clock = ManualClock()
    tracker = BackendStateTracker(clock=clock)
    assert tracker.current().name == "asleep"

    assert tracker.begin_boot()
    clock.now += 4
    assert (tracker.current().name, tracker.current().since_s) == ("booting", 4)
    assert not tracker.begin_boot(), "one boot, however many ask"

    tracker.mark_up()
    assert (tracker.current().name, tracker.current().since_s) == ("up", 0)
    assert not tracker.begin_boot()


def test_recent_states_are_ordered_and_bounded() -> None:
    clock = ManualClock()
    tracker = BackendStateTracker(clock=clock, assume_asleep_after_s=30)
    clock.now += 5
    tracker.mark_asleep()
    tracker.begin_boot()
    clock.now += 2
    tracker.mark_up()
    clock.now += 40

    assert tracker.recent_states() == [("asleep", 47), ("booting", 42), ("up", 40), ("asleep", 10)]
    for _ in range(MAX_STATES):
        boot(tracker, clock, 1)
    assert len(tracker.recent_states()) == MAX_STATES


def test_usual_boot_time_comes_from_past_boots() -> None:
    clock = ManualClock()
    tracker = BackendStateTracker(clock=clock)
    assert tracker.current().usual_boot_s is None

    for seconds in (9, 1, 2, 3, 4, 5, 6, 7, 8, 30):
        boot(tracker, clock, seconds)

    assert tracker.current().usual_boot_s == (5, 9)
    assert tracker.current().describe() == {
        "state": "up",
        "since_s": 0.0,
        "usual_boot_s": {"p50": 5, "p90": 9},
        "reason": None,
    }


def test_boot_times_survive_a_restart_in_a_bounded_file(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "new" / "boots.json"
    tracker = BackendStateTracker(path, clock=clock)
    for number in range(MAX_BOOTS + 20):
        boot(tracker, clock, 1 + number)

    assert len(json.loads(path.read_text())) == MAX_BOOTS
    assert BackendStateTracker(path, clock=clock).current().usual_boot_s == tracker.current().usual_boot_s


@pytest.mark.parametrize("content", ["", "{", '{"a": 1}', '["x"]', "[null]", "7"])
def test_damaged_boot_file_is_ignored(tmp_path: Path, content: str) -> None:
    path = tmp_path / "boots.json"
    path.write_text(content)
    assert BackendStateTracker(path).current().usual_boot_s is None


def test_only_a_boot_past_the_limit_has_failed() -> None:
    clock = ManualClock()
    tracker = BackendStateTracker(clock=clock)
    tracker.begin_boot()

    clock.now += BOOT_LIMIT_S
    assert tracker.current().name == "booting"
    clock.now += 1
    assert tracker.current().name == "failed"

    assert tracker.begin_boot(), "the first request after a failure tries again"


def test_failed_boot_does_not_change_usual_times() -> None:
    tracker = BackendStateTracker()
    tracker.begin_boot()
    tracker.mark_failed()
    assert (tracker.current().name, tracker.current().usual_boot_s) == ("failed", None)


def test_server_that_was_up_already_teaches_no_boot_time() -> None:
    clock = ManualClock()
    tracker = BackendStateTracker(min_boot_s=1, clock=clock)
    tracker.begin_boot()
    clock.now += 0.9
    tracker.mark_up()
    assert tracker.current().usual_boot_s is None


def test_longer_boots_may_be_allowed() -> None:
    clock = ManualClock()
    tracker = BackendStateTracker(boot_limit_s=300, clock=clock)
    tracker.begin_boot()
    clock.now += 299
    assert tracker.current().name == "booting"
    tracker.mark_up()
    assert tracker.current().usual_boot_s == (299, 299)


def test_backend_with_an_open_call_is_not_asleep() -> None:
    clock = ManualClock()
    tracker = BackendStateTracker(assume_asleep_after_s=45, clock=clock)
    tracker.mark_up()
    with tracker.calling():
        clock.now += 200  # a large image in a large network: no band yet
        assert tracker.current().name == "up"
        assert not tracker.begin_boot()
    clock.now += 45
    assert tracker.current().name == "up"
    clock.now += 1
    assert tracker.current().name == "asleep"


def test_unobserved_backend_is_asleep_after_idle_time() -> None:
    clock = ManualClock()
    tracker = BackendStateTracker(assume_asleep_after_s=60, clock=clock)
    tracker.begin_boot()
    tracker.mark_up()
    clock.now += 50
    tracker.mark_up()
    clock.now += 60
    assert tracker.current().name == "up"

    clock.now += 5
    assert (tracker.current().name, tracker.current().since_s) == ("asleep", 5)


def test_reason_lasts_until_the_backend_is_up() -> None:
    tracker = BackendStateTracker()
    tracker.mark_failed("It hung.")
    tracker.begin_boot()
    assert (tracker.current().name, tracker.current().describe()["reason"]) == ("booting", "It hung.")

    tracker.mark_up()
    assert tracker.current().reason == ""
    tracker.mark_failed("It hung.")
    tracker.mark_failed()
    assert tracker.current().reason == "", "a boot that fails has another reason"


def test_calls_without_a_result_mean_failed_until_a_result() -> None:
    clock = ManualClock()
    tracker = BackendStateTracker(hang_after_s=30, clock=clock)
    tracker.mark_up()
    clock.now += 1_000
    tracker.mark_silent(10)
    assert tracker.current().name == "up", "10 s are too few"

    clock.now += 20
    tracker.mark_silent(10)
    state = tracker.current()
    assert (state.name, state.reason) == ("failed", "The backend has not responded to any image for 30 s.")

    assert tracker.begin_boot()
    tracker.mark_ready()
    assert (tracker.current().name, tracker.current().reason) == ("booting", state.reason), "readiness proves nothing"
    tracker.mark_up()
    assert (tracker.current().name, tracker.current().reason) == ("up", "")


def test_result_of_another_call_means_busy_and_zero_turns_it_off() -> None:
    clock = ManualClock()
    busy, off = (BackendStateTracker(hang_after_s=limit_s, clock=clock) for limit_s in (30, 0))
    for tracker in (busy, off):
        tracker.mark_up()
    clock.now += 90
    busy.mark_up()
    clock.now += 10
    for tracker in (busy, off):
        tracker.mark_silent(100)
        assert tracker.current().name == "up"


def test_cancelling_calls_each_callback_once_and_at_once() -> None:
    cancel_token, called = CancelToken(), []
    with cancel_token.on_cancel(lambda: called.append("early")):
        cancel_token.raise_if_cancelled()
    with cancel_token.on_cancel(lambda: called.append("waiting")):
        threading.Thread(target=cancel_token.cancel).start()
        while not cancel_token.is_cancelled or not called:
            pass
        cancel_token.cancel()
    with cancel_token.on_cancel(lambda: called.append("late")):
        assert called == ["waiting", "late"]
    with pytest.raises(CancelledError):
        cancel_token.raise_if_cancelled()
