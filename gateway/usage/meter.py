"""Meters GPU seconds (boot, work, idle) per calendar month, and enforces the monthly budget.

Awake time comes from the states of the backend, work from the compute time that the backend reports with each band. The
meter writes to the usage store every few seconds. What cannot be written is kept in memory, counts, and is written
later.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from gateway.backend.state import StateName
from gateway.usage.store import (
    AwakeSpan,
    ClientUsage,
    MonthlyUsage,
    SpanKind,
    UsageBatch,
    UsageStore,
    UsageStoreError,
    add_usage,
)

# Seconds between two readings of the backend's states. The tracker keeps past states with their times, so the interval
# does not limit the accuracy.
OBSERVE_INTERVAL_S = 1.0
# Seconds between two writes: the most that a killed process loses, and that replicas may overspend.
WRITE_INTERVAL_S = 10.0
# Seconds between two log records about a store that cannot be written.
LOG_INTERVAL_S = 300.0
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
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`recent_states` is `BackendStateTracker.recent_states`; `budget_s` is per month, 0 for unlimited."""
        self.budget_s = budget_s
        self._recent_states = recent_states
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        # Time of the last reading. The embedded server may have started to boot before the meter existed.
        self._observed_at = -math.inf
        self._spans: list[AwakeSpan] = []
        self._uses: dict[tuple[str, str], ClientUsage] = {}
        # Sent to the store, which may or may not have it: it is sent again, unchanged, until a write succeeds.
        self._batch: UsageBatch | None = None
        self._stored: dict[str, MonthlyUsage] = {}
        self._logged_error_at = -LOG_INTERVAL_S
        self._closed = threading.Event()

    def start(self) -> None:
        """Read the usage so far, and observe the backend from now on, on a separate thread."""
        self.write()
        threading.Thread(target=self._run, name="usage-meter", daemon=True).start()

    def close(self) -> None:
        """Observe the backend once more, and write what has not been written."""
        self._closed.set()
        self.observe()
        self.write()

    def observe(self) -> None:
        """Record the time that the backend was awake since the last reading."""
        with self._lock:
            states, now = self._recent_states(), self._clock()
            begins = [max(now - age_s, self._observed_at) for _, age_s in states]
            for (name, _), begin, end in zip(states, begins, [*begins[1:], now], strict=True):
                self._add_span(name, begin, end)
            self._observed_at = now

    def record_work(self, client: str, work_s: float, images: int) -> None:
        """Record compute seconds of a client's request, and the number of images it finished."""
        with self._lock:
            key = (format_month(self._clock()), client)
            before = self._uses.get(key, ClientUsage())
            self._uses[key] = ClientUsage(before.images + images, before.work_s + work_s)

    def current_month(self) -> MonthlyUsage:
        """Return the usage of this month: what the store has, and what this gateway has not written yet."""
        self.observe()
        with self._lock:
            return self._month()

    def is_budget_spent(self) -> bool:
        """Whether this month's budget is used up. Never true without a budget."""
        return self.budget_s > 0 and self.current_month().gpu_s >= self.budget_s

    def seconds_to_next_month(self) -> float:
        """Return the seconds until the next month (UTC)."""
        now = datetime.fromtimestamp(self._clock(), UTC)
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

    def write(self) -> None:
        """Write to the store what it does not have yet, and read what other gateways have written."""
        with self._write_lock:
            with self._lock:
                if self._batch is None and (self._spans or self._uses):
                    self._batch = UsageBatch(tuple(self._spans), dict(self._uses))
                    self._spans, self._uses = [], {}
                batch = self._batch
            try:
                if batch is not None:
                    self._store.add(batch)
                known = self._store.read()
            except UsageStoreError as error:
                self._log_error(error)
                return
            with self._lock:
                self._stored, self._batch = known, None

    def _month(self) -> MonthlyUsage:
        name = format_month(self._clock())
        known = self._stored.get(name, MonthlyUsage(name))
        seconds = {"boot_s": known.boot_s, "up_s": known.up_s}
        clients = dict(known.clients)
        batch = self._batch or UsageBatch()
        for span in (*batch.spans, *self._spans):
            if span.month == name:
                seconds[span.kind] += span.end - span.begin
        for uses in (batch.uses, self._uses):
            for (month, client), use in uses.items():
                if month == name:
                    clients = add_usage(clients, client, use)
        return MonthlyUsage(name, **seconds, clients=clients)

    def _add_span(self, state: str, begin: float, end: float) -> None:
        kind = _SPAN_KINDS.get(state)
        if kind is None or end <= begin:
            return
        month = format_month(end)
        if self._spans and (last := self._spans[-1]).end == begin and (last.kind, last.month) == (kind, month):
            self._spans[-1] = AwakeSpan(month, kind, last.begin, end)  # the list stays short
        else:
            self._spans.append(AwakeSpan(month, kind, begin, end))

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

    def _log_error(self, error: UsageStoreError) -> None:
        now = time.monotonic()
        if now - self._logged_error_at >= LOG_INTERVAL_S:
            self._logged_error_at = now
            _log.error("%s Usage is kept in memory until it can be written.", error)


def format_month(moment: float) -> str:
    """Return the month (UTC) of a Unix time, as in 2026-11."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m")
