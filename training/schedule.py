"""How long a run lasts, by steps or by the clock, and the learning rate that follows from it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import click

FINAL_RATE = 0.01


def parse_until(text: str, now: float | None = None) -> float:
    """The next time of day `HH:MM` (UTC) as seconds since 1970; raises ValueError when it is not a time of day."""
    current = datetime.fromtimestamp(time.time() if now is None else now, tz=UTC)
    try:
        clock = datetime.strptime(text, "%H:%M").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"Invalid time of day {text!r}; write hours and minutes as in 20:30 (UTC).") from None
    moment = current.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
    return (moment if moment > current else moment + timedelta(days=1)).timestamp()


class TimeOfDay(click.ParamType[float]):
    """An option `HH:MM` (UTC) of the command line, as seconds since 1970; see parse_until."""

    name = "HH:MM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the option; an invalid one ends the command with its message."""
        try:
            return value if isinstance(value, float) else parse_until(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass
class Schedule:
    """Linear warm-up over a cosine that ends at a step, after minutes of training, or at a time of day."""

    steps: int
    minutes: float | None
    """Minutes of training, all starts of the run added up."""

    until: float | None
    """Seconds since 1970: neighbours that take the CPU shorten the run instead of delaying its end."""

    warm_up: int
    began: float
    """When the run began, seconds since 1970."""

    def share_done(self, step: int, seconds: float, now: float) -> float:
        """Share of the run that is behind after `step` steps and `seconds` of training; 1 or more at its end."""
        if self.until is not None:
            return (now - self.began) / max(self.until - self.began, 1e-9)
        return seconds / (60 * self.minutes) if self.minutes else step / self.steps

    def rate(self, step: int, share_done: float) -> float:
        """Share of the peak learning rate: warm-up, then a cosine from 1 down to 0.01."""
        cosine = max(FINAL_RATE, 0.5 * (1 + math.cos(math.pi * min(1.0, share_done))))
        return cosine * min(1.0, (step + 1) / max(1, self.warm_up))
