"""The phases of a job and the seconds that it spends in each: queue, decode, boot, work and encode.

Work and encode alternate, band by band. Time in which the job waits for the backend counts as boot while the backend
boots, and as work otherwise.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from gateway.backend.state import StateName

Phase: TypeAlias = Literal["queue", "decode", "boot", "work", "encode"]
PHASES: tuple[Phase, ...] = get_args(Phase)

RecentStates = Callable[[], Sequence[tuple[StateName, float]]]
"""`BackendStateTracker.recent_states`."""


# Bands whose arrival is remembered, for traces; an exporter keeps no more events of a span.
MAX_BAND_TIMES = 128


@dataclass(frozen=True)
class PhaseTime:
    """The time of a job in one phase."""

    seconds: float
    """Seconds in this phase, without those of other phases in between."""
    first: float
    """Clock time at which the phase began for the first time."""
    last: float
    """Clock time at which it ended for the last time."""

    def add(self, first: float, last: float) -> PhaseTime:
        """Return the time with one more stay in the phase."""
        return PhaseTime(self.seconds + last - first, self.first, last)


class PhaseTimer:
    """Measures the phases of one job, which starts in the queue. Other threads may read it at any time."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        recent_states: RecentStates = lambda: (),
        first: Phase | None = "queue",
    ) -> None:
        """`first` is None for a job that has no phases."""
        self._clock = clock
        self._recent_states = recent_states
        self._lock = threading.Lock()
        self._ended: dict[Phase, PhaseTime] = {}
        self._band_times: list[float] = []
        self._current = first
        self._since = clock()
        # Whether part of the current phase may be the boot of the backend.
        self._waits_for_backend = False

    def enter(self, phase: Phase, *, waits_for_backend: bool = False) -> None:
        """End the current phase and begin another, which may be one of before."""
        self._end_current(phase, waits_for_backend=waits_for_backend)

    def end(self) -> None:
        """End the current phase: the job is over."""
        self._end_current(None, waits_for_backend=False)

    def note_band(self) -> None:
        """Remember that a band has arrived now."""
        with self._lock:
            if len(self._band_times) < MAX_BAND_TIMES:
                self._band_times.append(self._clock())

    def band_times(self) -> list[float]:
        """Return the clock times at which bands arrived."""
        with self._lock:
            return list(self._band_times)

    def times(self) -> dict[Phase, PhaseTime]:
        """Return the time of each phase so far, the current one included; phases that never began are absent."""
        with self._lock:
            return self._add_current(self._clock())

    def seconds(self) -> dict[Phase, float]:
        """Return the seconds of each phase so far."""
        return {phase: spent.seconds for phase, spent in self.times().items()}

    def _end_current(self, following: Phase | None, *, waits_for_backend: bool) -> None:
        with self._lock:
            now = self._clock()
            self._ended = self._add_current(now)
            self._current, self._since, self._waits_for_backend = following, now, waits_for_backend

    def _add_current(self, now: float) -> dict[Phase, PhaseTime]:
        times, since = dict(self._ended), self._since
        if self._current is None:
            return times
        if self._waits_for_backend and (boot_s := booting_s(self._recent_states(), now - since)):
            up_at = since + boot_s  # a wait begins with the boot, if there is one
            times["boot"] = times.get("boot", PhaseTime(0.0, since, since)).add(since, up_at)
            since = up_at
        times[self._current] = times.get(self._current, PhaseTime(0.0, since, since)).add(since, now)
        return times


def booting_s(states: Sequence[tuple[StateName, float]], within_s: float) -> float:
    """Return how many of the last `within_s` seconds the backend was booting.

    `states` are its last states with the seconds since each was entered, oldest first.
    """
    ends = [since_s for _, since_s in states[1:]] + [0.0]
    return sum(
        max(0.0, min(since_s, within_s) - end_s)
        for (name, since_s), end_s in zip(states, ends, strict=True)
        if name == "booting"
    )


def round_phases(seconds: Mapping[Phase, float]) -> dict[str, float]:
    """Return the seconds as a log line names them, in milliseconds' precision: {"queue_s": 0.25, ...}."""
    return {f"{phase}_s": round(seconds[phase], 3) for phase in PHASES if phase in seconds}
