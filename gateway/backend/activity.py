"""Whether anybody uses the embedded Triton: the gateway, a client of its ports, or anyone else."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from gateway.backend.triton_counters import CountersUnreadableError, TritonCounters, read_counters

# Seconds between two readings of Triton's counters. Each costs 0.2 ms of CPU here and in Triton.
READ_INTERVAL_S = 1.0
# Seconds for which a server counts as used while its counters cannot be read. Triton also runs without them: if another
# program takes their port just before it starts, it logs an error and reports ready (2.51, seen).
UNREADABLE_LIMIT_S = 60.0

_log = logging.getLogger(__name__)


class ServerActivity:
    """The use of one server, from its counters and from what its forwarded connections do. For one thread."""

    def __init__(
        self,
        metrics_port: int,
        has_open_request: Callable[[], bool],
        *,
        read: Callable[[int], TritonCounters] = read_counters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics_port = metrics_port
        self._has_open_request = has_open_request
        self._read = read
        self._clock = clock
        self._next_reading = self._last_reading = clock()
        self.counters: TritonCounters | None = None
        """The last ones that could be read."""

    def is_due(self) -> bool:
        """Return whether the last reading is READ_INTERVAL_S old."""
        return self._clock() >= self._next_reading

    def is_in_use(self) -> bool:
        """Return whether Triton worked since the last reading, or a request waits or is open.

        True if the counters cannot be read: the server may be at work. It opens their port last. After
        UNREADABLE_LIMIT_S without them, open requests alone are use.
        """
        now = self._clock()
        self._next_reading = now + READ_INTERVAL_S
        earlier = self.counters
        try:
            self.counters = self._read(self._metrics_port)
        except CountersUnreadableError as error:
            _log.debug("%s", error)
            return now - self._last_reading < UNREADABLE_LIMIT_S or self._has_open_request()
        self._last_reading = now
        has_moved = earlier is not None and self.counters.has_moved_since(earlier)
        return has_moved or self.counters.pending > 0 or self._has_open_request()
