"""Stops calls to a Redis that cannot be used, and logs each outage with two lines: its beginning and its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

# While Redis is unavailable, one request per second tries it and waits for at most one timeout of `storage.redis`.
RETRY_S = 1.0

# Minimum time between two log lines about outages, and between two about commands that Redis rejects. A Redis that
# comes and goes, or a busy client's key, would fill the log.
LOG_AGAIN_S = 60.0

_log = logging.getLogger(__name__)


class CircuitBreaker:
    """Allows calls while Redis can be used, else one per RETRY_S to test whether it is back. Safe for several threads.

    Between `record_outage` and `record_success` it is open. A caller that is allowed a call while it is open makes a
    successful write before it calls `record_success`: a replica responds to reads, too.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Time of the next test; 0 while Redis can be used.
        self._retry_at = 0.0
        self._next_outage_log = 0.0
        self._next_rejection_log = 0.0
        # Whether the log has a line about the beginning of this outage, and number of outages that it does not mention.
        self._is_logged = False
        self._unlogged = 0
        self.outages = 0
        """Number of failed calls. The result of a call that began before the last of them does not end the outage."""

    @property
    def is_closed(self) -> bool:
        """Whether Redis can be used, as far as is known."""
        return not self._retry_at

    def allows_call(self) -> bool:
        """Return whether to call Redis now."""
        if self.is_closed:
            return True
        with self._lock:
            now = self._clock()
            if self._retry_at > now:
                return False
            self._retry_at = now + RETRY_S
            return True

    def record_success(self, outages: int) -> None:
        """Record a successful call. `outages` is the number of outages when the call began."""
        if self.is_closed:
            return
        with self._lock:
            if self.outages != outages or self.is_closed:
                return
            self._retry_at = 0.0
            was_logged, self._is_logged = self._is_logged, False
            self._unlogged += not was_logged
        if was_logged:
            _log.warning("Redis is available again. Rate limits are shared between gateways.")

    def record_rejection(self, reason: str, outages: int) -> None:
        """Record that Redis can be used, but rejected the command."""
        self.record_success(outages)
        with self._lock:
            now = self._clock()
            is_due = now >= self._next_rejection_log
            if is_due:
                self._next_rejection_log = now + LOG_AGAIN_S
        if is_due:
            _log.error("Redis rejected a command (%s). That amount is counted in this process only.", reason)

    def record_outage(self, reason: str) -> None:
        """Record that Redis cannot be used."""
        with self._lock:
            now = self._clock()
            is_new = self.is_closed
            self.outages += 1
            self._retry_at = now + RETRY_S
            is_due = not self._is_logged and now >= self._next_outage_log
            unlogged = self._unlogged
            if is_due:
                self._is_logged, self._next_outage_log, self._unlogged = True, now + LOG_AGAIN_S, 0
        if is_due:
            _log.error(
                "Redis is unavailable: %s. Until it is back, each gateway process counts rate limits by itself.%s",
                reason,
                f" It was unavailable {unlogged:,} more times since the last such line." if unlogged else "",
            )
        elif is_new:
            _log.debug("Redis is unavailable: %s.", reason)
