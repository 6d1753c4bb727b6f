"""The hang detector: what counts as progress, and for how long a server may show none."""

from __future__ import annotations

import pytest

from gateway.backend.hang_detector import MAX_INTERVAL_S, HangDetector
from testing.clock import ManualClock


class Watched:
    """A detector that sees one observation per second, with a limit of 30 s and a deadline of 300 s."""

    def __init__(self, hang_after_s: float = 30.0, deadline_s: float = 300.0) -> None:
        self.clock = ManualClock()
        self.detector = HangDetector(hang_after_s, deadline_s, clock=self.clock)
        self.tiles = 1.0
        self.cpu_s = 5.0
        self.detector.observe(self.tiles, self.cpu_s, is_work_waiting=False)

    def pass_by(self, seconds: int, *, cores: float = 0.001, waiting: bool = True, step_s: float = 1.0) -> str:
        """Return what the detector found first."""
        found = ""
        for _ in range(round(seconds / step_s)):
            self.clock.now += step_s
            self.cpu_s += cores * step_s
            found = found or self.detector.observe(self.tiles, self.cpu_s, is_work_waiting=waiting)
        return found


def test_waiting_work_without_tiles_and_without_computing_is_a_hang() -> None:
    watched = Watched()
    assert watched.pass_by(29) == ""
    assert watched.pass_by(1) == "work has waited for 30 s; no tile was restored, and nothing was computed"
    assert watched.detector.seconds == 30
    assert not watched.detector.has_progressed


def test_idle_server_does_not_hang() -> None:
    assert Watched().pass_by(3_600, waiting=False) == ""


def test_tile_resets_the_time() -> None:
    watched = Watched()
    watched.pass_by(29)
    watched.tiles = 2
    assert watched.pass_by(30) == ""
    assert watched.detector.has_progressed
    assert watched.pass_by(1) != ""


@pytest.mark.parametrize(("cores", "hangs_after_s"), [(2.0, 300), (0.05, 300), (0.002, 30)])
def test_slow_tile_is_no_hang_before_the_deadline(cores: float, hangs_after_s: int) -> None:
    watched = Watched()
    assert watched.pass_by(hangs_after_s - 1, cores=cores) == ""
    assert watched.pass_by(1, cores=cores).startswith(f"work has waited for {hangs_after_s} s")


def test_computing_that_stops_counts_from_then() -> None:
    watched = Watched()
    assert watched.pass_by(100, cores=1.0) == ""
    assert watched.pass_by(28) == ""
    assert "nothing was computed" in watched.pass_by(3)


def test_requests_that_give_up_one_by_one_do_not_hide_a_hang() -> None:
    watched = Watched()
    for _ in range(2):
        assert watched.pass_by(10) == ""
        assert watched.pass_by(100, waiting=False) == ""
    assert watched.pass_by(10) != ""


def test_stopped_observer_is_no_hang() -> None:
    watched = Watched()
    assert watched.pass_by(3_600, step_s=3_600) == ""
    assert watched.detector.seconds == MAX_INTERVAL_S


def test_zero_turns_the_detector_off() -> None:
    assert Watched(hang_after_s=0).pass_by(3_600) == ""


def test_limit_is_never_above_its_own_setting_for_short_deadlines() -> None:
    watched = Watched(hang_after_s=30, deadline_s=10)
    assert watched.pass_by(29, cores=1.0) == ""
    assert watched.pass_by(1, cores=1.0) != ""
