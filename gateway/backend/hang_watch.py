"""Hangs of an embedded server: `HangWatch` sees them, `Hangs` knows what they mean for its calls and the next boot."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from gateway.backend.hang_detector import HangDetector
from gateway.backend.interface import (
    BackendDiedError,
    BackendError,
    BackendHungError,
    BackendUnavailableError,
    Band,
)
from gateway.backend.triton_client import STUB_NOT_HEALTHY, TritonClient
from gateway.backend.triton_counters import ModelCounters, TritonCounters
from gateway.backend.triton_process import EXIT_TIMEOUT_S, TritonProcess
from gateway.backend.triton_stubs import STOPPED_LIMIT_S
from gateway.backend.unreachable import is_being_ended
from gateway.config.settings import Settings

# The model whose tiles and whose stub show progress.
NETWORK_MODEL = "swinir"
# Seconds in which a failed connection may turn out to be a dead process: a killed process closes its sockets before it
# is reported as ended (under load by more than 70 ms).
DEATH_GRACE_S = 2.0


class HangWatch:
    """Watches a server that is up. Not safe to use from several threads."""

    def __init__(self, process: TritonProcess, settings: Settings, is_awaited: Callable[[], bool]) -> None:
        """`is_awaited` returns whether a request of this gateway waits for the server.

        Requests of other clients count as waiting while Triton queues them.
        """
        self._process = process
        self._is_awaited = is_awaited
        self._detector = HangDetector(settings.hang_after_s, settings.deadline_s)

    @property
    def seconds(self) -> float:
        """Seconds for which work has waited without progress."""
        return self._detector.seconds

    @property
    def has_progressed(self) -> bool:
        """Whether the server has restored a tile since the watch began."""
        return self._detector.has_progressed

    def check(self, counters: TritonCounters | None) -> str:
        """Return why the server hangs, for the log, or an empty string. Call it about once a second.

        `counters` are the last ones that could be read; a stopped server does not send any.
        """
        network = ModelCounters() if counters is None else counters.models.get(NETWORK_MODEL, ModelCounters())
        is_queued = counters is not None and counters.pending > 0
        return self._detector.observe(
            network.tiles or network.executions,
            self._process.cpu_s(NETWORK_MODEL),
            is_work_waiting=is_queued or self._is_awaited(),
        )


class Hangs:
    """The calls that wait for an embedded backend, and its hangs in a row. Safe to use from several threads."""

    def __init__(self, max_in_a_row: int) -> None:
        """After `max_in_a_row` hangs without a restored tile between them, another boot does not help."""
        self._max_in_a_row = max_in_a_row
        self._lock = threading.Lock()
        self._awaited_bands = 0
        self._in_a_row = 0
        # The client of the last server that hung, and the error of its calls.
        self._last: tuple[TritonClient | None, BackendHungError] | None = None

    def await_band(self, bands: Iterator[Band]) -> Band | None:
        """Return the next band, or None after the last one. While a client reads a band, nothing is awaited."""
        with self._lock:
            self._awaited_bands += 1
        try:
            band = next(bands, None)
        finally:
            with self._lock:
                self._awaited_bands -= 1
        self._in_a_row = 0
        return band

    def is_awaited(self) -> bool:
        """Return whether a call waits for the server."""
        return self._awaited_bands > 0

    def record(self, client: TritonClient | None, watch: HangWatch) -> str:
        """Record that the server of `client` hangs, and return the reason for users."""
        with self._lock:
            self._in_a_row = 1 if watch.has_progressed else self._in_a_row + 1
            is_replaced = self._in_a_row < self._max_in_a_row
            self._last = (client, BackendHungError(watch.seconds, is_replaced=is_replaced))
        fate = "is being replaced" if is_replaced else "was ended"
        return f"The backend did not respond for {watch.seconds:.0f} s and {fate}."

    def error_of(self, client: TritonClient) -> BackendDiedError:
        """Return the error of the calls of a server that was ended."""
        if (last := self._last) is not None and last[0] is client:
            return last[1]
        return BackendDiedError("Triton or one of its stubs died while it worked")

    def were_too_many(self) -> bool:
        """Return whether another boot does not help. If so, counts from 0 again."""
        with self._lock:
            if self._in_a_row < self._max_in_a_row:
                return False
            self._in_a_row = 0
            return True


def grace_s(error: BackendError) -> float:
    """Return the seconds in which the server of a failed call may turn out to be broken."""
    if is_being_ended(str(error)):
        return EXIT_TIMEOUT_S + DEATH_GRACE_S
    if isinstance(error, BackendUnavailableError):
        return DEATH_GRACE_S
    return STOPPED_LIMIT_S + DEATH_GRACE_S if STUB_NOT_HEALTHY in str(error) else 0.0
