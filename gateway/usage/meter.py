"""The meter: counts what the GPU costs (boot, work, idle tail) from the backend's states and its bands, month by month.

Awake time is observed, work is what the backend says its network took for a picture. Written to the store every few
seconds; what cannot be written now is kept and counts all the same. Knows what may be spent, and says when it is.
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

WATCH_INTERVAL_S = 1.0
"""Between two looks at the backend's states. No change is missed and each moment is exact, whenever the look is."""
WRITE_INTERVAL_S = 10.0
"""Between two writes: what a killed process loses at most, and by how much replicas may overspend."""
COMPLAIN_INTERVAL_S = 300.0
_AWAKE: dict[str, SpanKind] = {"booting": "boot_s", "up": "up_s"}

_log = logging.getLogger(__name__)


class UsageMeter:
    """Counts for one gateway. Safe to use from several threads."""

    def __init__(
        self,
        lately: Callable[[], list[tuple[StateName, float]]],
        store: UsageStore,
        *,
        budget_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`lately` is `States.lately`. `budget_s` of GPU time may be spent a month; 0 for as much as you like."""
        self.budget_s = budget_s
        self._lately = lately
        self._ledger = store
        self._clock = clock
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._seen_at = -math.inf
        """When we last looked. The embedded server may have begun to boot before there was a meter."""
        self._spans: list[AwakeSpan] = []
        self._uses: dict[tuple[str, str], ClientUsage] = {}
        self._batch: UsageBatch | None = None
        """Was given to the store and may or may not have arrived; given again, unchanged, until it has."""
        self._known: dict[str, MonthlyUsage] = {}
        self._complained = -COMPLAIN_INTERVAL_S
        self._closed = threading.Event()

    def start(self) -> None:
        """Read what was spent before, and observe from now on, on a thread of its own."""
        self.write()
        threading.Thread(target=self._keep, name="meter", daemon=True).start()

    def close(self) -> None:
        """Write down what is not written yet."""
        self._closed.set()
        self.observe()
        self.write()

    def observe(self) -> None:
        """Note the time that the backend was awake since the last look."""
        with self._lock:
            states, now = self._lately(), self._clock()
            begins = [max(now - began_s_ago, self._seen_at) for _, began_s_ago in states]
            for (name, _), begin, end in zip(states, begins, [*begins[1:], now], strict=True):
                self._note(name, begin, end)
            self._seen_at = now

    def record_work(self, client: str, work_s: float, pictures: int) -> None:
        """Note what the network worked for a client, and its pictures that are finished."""
        with self._lock:
            key = (month_of(self._clock()), client)
            before = self._uses.get(key, ClientUsage())
            self._uses[key] = ClientUsage(before.pictures + pictures, before.work_s + work_s)

    def current_month(self) -> MonthlyUsage:
        """Return this month as far as it is known here, what is not written yet included."""
        self.observe()
        with self._lock:
            return self._month()

    def is_budget_spent(self) -> bool:
        """Whether this month's budget is used up."""
        return self.budget_s > 0 and self.current_month().gpu_s >= self.budget_s

    def seconds_to_next_month(self) -> float:
        """Return how long it is until the next month begins."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
        return (following - now).total_seconds()

    def describe(self) -> dict[str, Any]:
        """Return this month as `GET /api/v1/status` tells it."""
        month = self.current_month()
        return {
            "name": month.name,
            "gpu_s": round(month.gpu_s, 1),
            "boot_s": round(month.boot_s, 1),
            "work_s": round(month.work_s, 1),
            "idle_s": round(month.idle_s, 1),
            "pictures": sum(use.pictures for use in month.clients.values()),
            "budget_gpu_s": self.budget_s or None,
            "is_spent": 0 < self.budget_s <= month.gpu_s,
        }

    def write(self) -> None:
        """Give the store what it has not got yet, and read what others have written."""
        with self._writing:
            with self._lock:
                if self._batch is None and (self._spans or self._uses):
                    self._batch = UsageBatch(tuple(self._spans), dict(self._uses))
                    self._spans, self._uses = [], {}
                batch = self._batch
            try:
                if batch is not None:
                    self._ledger.add(batch)
                known = self._ledger.read()
            except UsageStoreError as error:
                self._complain(error)
                return
            with self._lock:
                self._known, self._batch = known, None

    def _month(self) -> MonthlyUsage:
        name = month_of(self._clock())
        known = self._known.get(name, MonthlyUsage(name))
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

    def _note(self, state: str, begin: float, end: float) -> None:
        kind = _AWAKE.get(state)
        if kind is None or end <= begin:
            return
        month = month_of(end)
        if self._spans and (last := self._spans[-1]).end == begin and (last.kind, last.month) == (kind, month):
            self._spans[-1] = AwakeSpan(month, kind, last.begin, end)  # one line, however long it cannot be written
        else:
            self._spans.append(AwakeSpan(month, kind, begin, end))

    def _keep(self) -> None:
        written = time.monotonic()
        while not self._closed.wait(WATCH_INTERVAL_S):
            try:
                self.observe()
                if time.monotonic() - written >= WRITE_INTERVAL_S:
                    written = time.monotonic()
                    self.write()
            except Exception:  # noqa: BLE001 - whatever it is, the next look may succeed
                _log.exception("the meter stumbles; it goes on")

    def _complain(self, error: UsageStoreError) -> None:
        now = time.monotonic()
        if now - self._complained >= COMPLAIN_INTERVAL_S:
            self._complained = now
            _log.error("%s What is spent meanwhile is kept in memory.", error)


def month_of(moment: float) -> str:
    """Return the name of a moment's month."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m")
