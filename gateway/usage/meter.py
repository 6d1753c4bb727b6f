"""Meters GPU seconds (boot, work, idle) per calendar month, and enforces the monthly budget.

Awake time comes from the states of the backend, work from the compute time that the backend reports with each band. The
meter writes to the usage store every few seconds. What cannot be written is kept in memory, counts, and is written
later; at the end of the process it goes to a file, which the next start reads.

Durations are measured by a monotonic clock: a machine's clock that is set back or forward neither stops the meter nor
adds a second. The store's clock only decides the month.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gateway.backend.state import StateName
from gateway.usage.records import (
    AwakeSpan,
    ClientUsage,
    MonthlyUsage,
    SpanKind,
    UsageBatch,
    UsageStoreError,
    add_usage,
    format_month,
)
from gateway.usage.store import UsageStore
from gateway.usage.unwritten import UnwrittenUsageFile, describe_batches

# Seconds between two readings of the backend's states. The tracker keeps past states with their times, so the interval
# does not limit the accuracy.
OBSERVE_INTERVAL_S = 1.0
# Seconds between two writes: the most that a killed process loses, and that replicas may overspend.
WRITE_INTERVAL_S = 10.0
# Seconds between two log records about a store that cannot be written.
LOG_INTERVAL_S = 300.0
# Seconds in which the stop tries to write, and between two attempts.
CLOSE_LIMIT_S = 2.0
CLOSE_RETRY_S = 0.2
_SPAN_KINDS: dict[str, SpanKind] = {"booting": "boot_s", "up": "up_s"}

_log = logging.getLogger(__name__)


class UsageMeter:
    """The meter of one gateway. Safe to use from several threads."""

    def __init__(
        self,
        recent_states: Callable[[], list[tuple[StateName, float]]],
        store: UsageStore,
        *,
        budget_s: float = 0.0,
        unwritten: UnwrittenUsageFile | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`recent_states` is `BackendStateTracker.recent_states`; `budget_s` is per month, 0 for unlimited.

        `unwritten` keeps what cannot be written at the end; None loses it.
        """
        self.budget_s = budget_s
        self._recent_states = recent_states
        self._store = store
        self._unwritten = unwritten
        self._clock = clock
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        # Time of the last reading. The embedded server may have started to boot before the meter existed.
        self._observed_at = -math.inf
        self._spans: list[AwakeSpan] = []  # by the monotonic clock
        self._uses: dict[tuple[str, str], ClientUsage] = {}
        # The store may or may not have the first of them: it is sent again, unchanged, until a write succeeds.
        self._batches: list[UsageBatch] = []
        # The store has them, but `_stored`, which was read before, does not.
        self._added: list[UsageBatch] = []
        self._stored: dict[str, MonthlyUsage] = {}
        # Time of the last log line about a store that cannot be written, and whether it has not been written since.
        self._logged_failure_at = -math.inf
        self._is_failure_logged = False
        self._closed = threading.Event()

    def start(self) -> None:
        """Read the usage so far, and observe the backend from now on, on a separate thread."""
        self._read_unwritten()
        self.write()
        threading.Thread(target=self._run, name="usage-meter", daemon=True).start()

    def close(self) -> None:
        """Observe the backend once more, and write until nothing is left or CLOSE_LIMIT_S is over."""
        self._closed.set()
        self.observe()
        end = time.monotonic() + CLOSE_LIMIT_S
        while not (is_written := self.write()) and time.monotonic() < end:
            time.sleep(CLOSE_RETRY_S)
        if not is_written:
            self._keep_unwritten()

    def observe(self) -> None:
        """Record the time that the backend was awake since the last reading."""
        with self._lock:
            states, now = self._recent_states(), self._clock()
            offset_s = self._store.now() - now
            begins = [max(now - age_s, self._observed_at) for _, age_s in states]
            for (name, _), begin, end in zip(states, begins, [*begins[1:], now], strict=True):
                self._add_span(name, begin, end, offset_s)
            self._observed_at = now

    def record_work(self, client: str, work_s: float, images: int) -> None:
        """Record compute seconds of a client's request, and the number of images it finished."""
        with self._lock:
            key = (format_month(self._store.now()), client)
            before = self._uses.get(key, ClientUsage())
            self._uses[key] = ClientUsage(before.images + images, before.work_s + work_s)

    def current_month(self) -> MonthlyUsage:
        """Return the usage of this month: what the store has, and what this gateway has not written yet."""
        self.observe()
        with self._lock:
            return self._month()

    def is_budget_spent(self) -> bool:
        """Return whether this month's budget is used up. Never true without a budget."""
        return self.budget_s > 0 and self.current_month().gpu_s >= self.budget_s

    def seconds_to_next_month(self) -> float:
        """Return the seconds until the next month (UTC)."""
        now = datetime.fromtimestamp(self._store.now(), UTC)
        first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
        return (following - now).total_seconds()

    def describe(self) -> dict[str, Any]:
        """Return the member `month` of `GET /api/v1/status`."""
        month = self.current_month()
        return {
            "name": month.name,
            "gpu_s": round(month.gpu_s, 1),
            "boot_s": round(month.boot_s, 1),
            "work_s": round(month.work_s, 1),
            "idle_s": round(month.idle_s, 1),
            "images": sum(use.images for use in month.clients.values()),
            "budget_gpu_s": self.budget_s or None,
            "is_spent": 0 < self.budget_s <= month.gpu_s,
        }

    def write(self) -> bool:
        """Write to the store what it does not have yet, and read what other gateways have written.

        Returns whether the store has everything.
        """
        with self._write_lock:
            try:
                while batch := self._next_batch():
                    self._store.add(batch)
                    with self._lock:
                        self._added.append(self._batches.pop(0))
                known = self._store.read()
            except UsageStoreError as error:
                self._log_failure(error)
                return False
            with self._lock:
                added, self._stored, self._added = self._added, known, []
            self._log_success()
            self._remove_unwritten(added)
            return True

    def _next_batch(self) -> UsageBatch | None:
        """Return the batch to write next, or None if there is nothing to write. Makes one of what has come up."""
        with self._lock:
            if not self._batches and (self._spans or self._uses):
                offset_s = self._store.now() - self._clock()
                spans = (replace(one, begin=one.begin + offset_s, end=one.end + offset_s) for one in self._spans)
                self._batches.append(UsageBatch(tuple(spans), self._uses))
                self._spans, self._uses = [], {}
            return self._batches[0] if self._batches else None

    def _month(self) -> MonthlyUsage:
        name = format_month(self._store.now())
        known = self._stored.get(name, MonthlyUsage(name))
        seconds = {"boot_s": known.boot_s, "up_s": known.up_s}
        clients = dict(known.clients)
        for batch in (*self._added, *self._batches, UsageBatch(tuple(self._spans), self._uses)):
            for span in batch.spans:
                if span.month == name:
                    seconds[span.kind] += span.end - span.begin
            for (month, client), use in batch.uses.items():
                if month == name:
                    clients = add_usage(clients, client, use)
        return MonthlyUsage(name, **seconds, clients=clients)

    def _add_span(self, state: str, begin: float, end: float, offset_s: float) -> None:
        kind = _SPAN_KINDS.get(state)
        if kind is None or end <= begin:
            return
        month = format_month(end + offset_s)
        if self._spans and (last := self._spans[-1]).end == begin and (last.kind, last.month) == (kind, month):
            self._spans[-1] = AwakeSpan(month, kind, last.begin, end)  # the list stays short
        else:
            self._spans.append(AwakeSpan(month, kind, begin, end))

    def _read_unwritten(self) -> None:
        """Take over what an earlier process could not write. It stays in the file until it is written."""
        try:
            found = self._unwritten.read() if self._unwritten else ()
        except UsageStoreError as error:
            _log.error("%s The usage in it is not counted.", error)
            return
        with self._lock:
            self._batches.extend(found)

    def _remove_unwritten(self, written: list[UsageBatch]) -> None:
        if self._unwritten and written:
            try:
                self._unwritten.remove({batch.id for batch in written})
            except UsageStoreError as error:
                _log.error("%s", error)

    def _keep_unwritten(self) -> None:
        """Put what the store does not have into the file, and log it."""
        self._next_batch()
        with self._lock:
            later = UsageBatch(tuple(self._spans), self._uses)
            left = [*self._batches, *([later] if later.spans or later.uses else [])]
        if not left:
            return
        outcome = "are lost."
        if self._unwritten:
            try:
                self._unwritten.add(left)
                outcome = f"are in {self._unwritten.path}, and the next start writes them."
            except UsageStoreError as error:
                outcome = f"are lost. {error}"
        _log.error("At the end, %s could not be written and %s", describe_batches(left), outcome)

    def _run(self) -> None:
        written = time.monotonic()
        while not self._closed.wait(OBSERVE_INTERVAL_S):
            try:
                self.observe()
                if time.monotonic() - written >= WRITE_INTERVAL_S:
                    written = time.monotonic()
                    self.write()
            except Exception:  # noqa: BLE001 - any error: the next round may succeed
                _log.exception("the usage meter failed once; it continues")

    def _log_failure(self, error: UsageStoreError) -> None:
        now = self._clock()
        if now - self._logged_failure_at >= LOG_INTERVAL_S:
            self._logged_failure_at, self._is_failure_logged = now, True
            with self._lock:
                kept = [*self._batches, UsageBatch(tuple(self._spans), self._uses)]
            _log.error("%s Usage is kept in memory until it can be written; now %s.", error, describe_batches(kept))

    def _log_success(self) -> None:
        if self._is_failure_logged:
            self._is_failure_logged = False
            _log.warning("The usage that was kept in memory is written.")
