"""A run ends by steps, by minutes of training or by the time of day, and its rate follows."""

from __future__ import annotations

import pytest

from training.schedule import FINAL_RATE, Schedule, parse_until

NOON = 1_000_000_800.0 - 1_000_000_800.0 % 86_400 + 12 * 3600


def test_until_is_the_next_such_time_of_day() -> None:
    assert parse_until("12:30", NOON) == NOON + 30 * 60
    assert parse_until("11:30", NOON) == NOON + 23.5 * 3600


@pytest.mark.parametrize("text", ["25:00", "noon", "12"])
def test_what_is_not_a_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid time of day"):
        parse_until(text, NOON)


@pytest.mark.parametrize(
    ("schedule", "half"),
    [
        (Schedule(steps=200, minutes=None, until=None, warm_up=0, began=NOON), (100, 0.0, NOON)),
        (Schedule(steps=200, minutes=2, until=None, warm_up=0, began=NOON), (7, 60.0, NOON)),
        (Schedule(steps=200, minutes=2, until=NOON + 600, warm_up=0, began=NOON), (7, 0.0, NOON + 300)),
    ],
    ids=["steps", "minutes", "until"],
)
def test_half_of_the_run_is_behind_at_half_of_its_length(schedule: Schedule, half: tuple[int, float, float]) -> None:
    share = schedule.share_done(*half)
    assert share == pytest.approx(0.5)
    assert schedule.rate(half[0], share) == pytest.approx(0.5)


def test_the_rate_warms_up_and_ends_at_its_final_share() -> None:
    schedule = Schedule(steps=1000, minutes=None, until=None, warm_up=10, began=NOON)
    assert schedule.rate(0, 0.0) == pytest.approx(0.1)
    assert schedule.rate(9, 0.0) == 1
    assert schedule.rate(1000, 1.0) == FINAL_RATE
