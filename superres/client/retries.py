"""When a request is sent again, and after how long: what the service asks for, or a growing pause.

Sending a request again is safe. Equal images give equal results, a result that was lost on the way comes from the cache
of the service, and a job is sent with an Idempotency-Key.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from superres.client.errors import ClientError, ConnectionFailedError, ProblemError, UnexpectedResponseError

# Seconds before a request is sent again after a fault of the service, at least.
_FAULT_PAUSE_S = 2.0
# Maximum seconds that chance adds to a Retry-After. The gateway reserves a slot of its queue until 5 s after it.
_MAX_ADDED_S = 2.0


@dataclass(frozen=True)
class RetryLimits:
    """How often and how long the client tries."""

    attempts: int = 6
    """Attempts in a row that fail because the connection does; 1: no request is sent again for that."""
    fault_attempts: int = 2
    """Attempts that fail because of a fault of the service (500, 502, 504). The image may be the cause."""
    max_wait_s: float = 120.0
    """Maximum Retry-After that is waited for (429, 503). A longer one raises the problem; 0: all of them do."""
    max_waits_s: float = 600.0
    """Maximum seconds of all waits of one call."""
    jitter: float = 0.2
    """Share of a pause that chance adds to it, so that many clients do not come back at the same time."""


class Cause(Enum):
    """Why an attempt failed."""

    BUSY = "busy"
    """The service says when to try again."""
    FAULT = "fault"
    """The service failed. The image may be the cause."""
    LOST = "lost"
    """The connection failed, or the service cannot be reached."""
    FINAL = "final"
    """Another attempt would not change it."""


def find_cause(error: ClientError) -> Cause:
    """Return whether another attempt may succeed, and why this one did not."""
    if isinstance(error, ConnectionFailedError):
        return Cause.LOST
    if not isinstance(error, ProblemError | UnexpectedResponseError):
        return Cause.FINAL
    if error.status in (429, 503):
        return Cause.BUSY if error.retry_after_s else Cause.LOST
    if error.status == 408:
        return Cause.LOST
    if isinstance(error, ProblemError):
        return Cause.FAULT if error.status >= 500 else Cause.FINAL
    return Cause.LOST if error.status in (502, 504) else Cause.FINAL  # of a proxy


class Retries:
    """The attempts of one call."""

    def __init__(self, limits: RetryLimits, random: Callable[[], float] = random_module.random) -> None:
        """`random` returns a number from 0 to 1."""
        self._limits = limits
        self._random = random
        self._waited_s = 0.0
        self._faults = self._lost = 0

    def note_progress(self) -> None:
        """Count lost connections from 0 again, because the last one transferred something."""
        self._lost = 0

    def choose_pause_s(self, error: ClientError) -> float:
        """Return the seconds until the next attempt. Raises the error if there is none."""
        cause = find_cause(error)
        if cause is Cause.FINAL:
            raise error
        retry_after_s = getattr(error, "retry_after_s", 0.0)
        if cause is Cause.BUSY:
            pause_s = max(1.0, retry_after_s)
            if retry_after_s > self._limits.max_wait_s:
                raise error
        elif cause is Cause.FAULT:
            self._faults += 1
            if self._faults >= self._limits.fault_attempts:
                raise error
            pause_s = max(_FAULT_PAUSE_S, min(retry_after_s, self._limits.max_wait_s))
        else:
            self._lost += 1
            if self._lost >= self._limits.attempts:
                raise error
            pause_s = float(2 ** (self._lost - 1))
        if self._waited_s + pause_s > self._limits.max_waits_s:
            raise error
        self._waited_s += pause_s
        return pause_s + min(_MAX_ADDED_S, pause_s * self._limits.jitter * self._random())
