"""A clock that stands still while the process is frozen: `docker pause`, SIGSTOP, a host without CPU time.

Clients are judged by it: one that could not be read for half a minute is not late when the process goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Maximum of seconds that count between two readings. All users read the clock at least once a second while they wait.
MAX_STEP_S = 1.5


class RunningClock:
    """Seconds in which this process ran, since any start. Safe for several threads.

    Nobody reads it during a freeze, so a long time between two readings is one. It also stands still when nobody needs
    it. The system's clock cannot set it back or forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._read_at = clock()
        self._ran_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        with self._lock:
            now = self._clock()
            self._ran_s += min(now - self._read_at, MAX_STEP_S)
            self._read_at = now
            return self._ran_s
