"""Interleaved measurements: the order of runs, dropped rounds, and ratios."""

from __future__ import annotations

import pytest

from benchmarks.machine import StolenTime
from benchmarks.rounds import Timing, compare, measure_in_turn


def test_candidates_run_in_turn_and_the_first_round_is_dropped() -> None:
    calls: list[str] = []
    timings = measure_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert {name: len(timing.wall_s) for name, timing in timings.items()} == {"a": 3, "b": 3}


def test_ratio_has_medians_and_quartiles() -> None:
    slow = Timing(wall_s=(4.0, 5.0, 6.0), cpu_s=(8.0, 8.0, 8.0))
    quick = Timing(wall_s=(2.0, 2.0, 2.0), cpu_s=(2.0, 2.0, 2.0))
    ratio = compare(slow, quick)
    assert (ratio.median, ratio.low, ratio.high, ratio.cpu, ratio.rounds) == (2.5, 2.25, 2.75, 4.0, 3)


def test_single_round_has_no_spread() -> None:
    ratio = compare(Timing((3.0,), (3.0,)), Timing((2.0,), (2.0,)))
    assert (ratio.low, ratio.high) == pytest.approx((1.5, 1.5))


def test_stolen_time_is_the_share_of_steal_since_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = iter([(100, 1000), (130, 2000)])
    monkeypatch.setattr(StolenTime, "_read", staticmethod(lambda: next(stats)))
    assert StolenTime().share() == 0.03


def test_stolen_time_of_this_machine_is_a_share() -> None:
    assert 0.0 <= StolenTime().share() <= 1.0
