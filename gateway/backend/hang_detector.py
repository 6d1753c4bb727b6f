"""Decides from what a server shows over time whether it hangs: work waits, and the network restores no tile.

Progress is Triton's counter of restored tiles, or processor time that the stub of `swinir` uses. A model that never
returns, a deadlock and a stopped process (SIGSTOP) show neither. The longest legitimate step, one tile of 256x256
pixels in the largest network, moves no counter for a minute (74 s on two cores shared with training runs, measured),
but computes meanwhile. Other counters move with each request that arrives, also while nothing is restored.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# Share of one core that a working stub exceeds. An idle one uses less than 0.001 (measured).
WORKING_CORES = 0.02
# An interval between two observations counts for at most this long: after a longer one the observer was stopped itself
# (a paused container, a suspended machine), and so was the server.
MAX_INTERVAL_S = 3.0


class HangDetector:
    """Adds up the seconds without progress of one server. Not safe to use from several threads."""

    def __init__(self, hang_after_s: float, deadline_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """A server that does not compute hangs after `hang_after_s`; 0 turns the detector off.

        One that computes, but restores no tile, hangs after `deadline_s`: no image can be finished in time.
        """
        self._hang_after_s = hang_after_s
        self._stuck_after_s = max(hang_after_s, deadline_s)
        self._clock = clock
        self._observed_at = clock()
        self._tiles = 0.0
        self._cpu_s = 0.0
        # Seconds in which work waited: without a restored tile, and of these without processor time.
        self._stuck_s = self._idle_s = 0.0
        # Processor seconds in `_idle_s`.
        self._idle_cpu_s = 0.0
        self.has_progressed = False
        """Whether a tile was restored after those of the warm-up."""

    @property
    def seconds(self) -> float:
        """Seconds for which work has waited since the last tile."""
        return self._stuck_s

    def observe(self, tiles: float, cpu_s: float, *, is_work_waiting: bool) -> str:
        """Return why the server hangs, for the log, or an empty string.

        `tiles` is the counter of restored tiles, the last one that could be read; `cpu_s` is the processor time that
        the stub has used since it started. Only seconds with waiting work count, and only progress resets them:
        requests that give up one by one must not hide a hang.
        """
        now = self._clock()
        elapsed_s, self._observed_at = min(now - self._observed_at, MAX_INTERVAL_S), now
        used_s, self._cpu_s = cpu_s - self._cpu_s, cpu_s
        if tiles != self._tiles:
            self.has_progressed = self.has_progressed or bool(self._tiles)
            self._tiles = tiles
            self._stuck_s = self._idle_s = self._idle_cpu_s = 0.0
        elif is_work_waiting:
            self._stuck_s += elapsed_s
            self._idle_s += elapsed_s
            self._idle_cpu_s += used_s
            if self._idle_cpu_s >= WORKING_CORES * self._hang_after_s:
                self._idle_s = self._idle_cpu_s = 0.0
        if not self._hang_after_s:
            return ""
        if self._idle_s >= self._hang_after_s:
            return f"work has waited for {self._stuck_s:.0f} s; no tile was restored, and nothing was computed"
        if self._stuck_s >= self._stuck_after_s:
            return f"work has waited for {self._stuck_s:.0f} s; no tile was restored, although something was computed"
        return ""
