"""Delivers the webhooks of jobs that have ended: at least once, with retries, on a bounded number of threads.

What is due is in the store of the jobs, so the queue is bounded as they are, and with Redis a delivery survives the
gateway: while one makes an attempt it has a lease, after whose end another gateway makes the attempt once more.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.async_jobs.record import Delivery, JobRecord
from gateway.async_jobs.status import describe_job
from gateway.async_jobs.store import JobStore, JobStoreError
from gateway.webhooks.sender import AttemptOutcome, WebhookSender

# Seconds between the attempts. The last one comes 7.7 hours after the first.
RETRY_DELAYS_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0)
# Each delay is changed by up to this share, so that the messages of an outage do not come back all at once.
JITTER = 0.2
# Attempts at the same time; each is one thread, which waits most of the time. One client has at most half of them,
# because its receiver may be slow.
MAX_ATTEMPTS_AT_ONCE = 16
MAX_PER_CLIENT = 8
# Webhooks that are looked at in one round.
MAX_PER_ROUND = 64
# Seconds until a webhook of a client that has its share of the threads is looked at again.
BUSY_DELAY_S = 1.0
# Four times what an attempt takes at most.
LEASE_S = 60.0
# Seconds between two looks for webhooks that are due.
POLL_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


class WebhookDeliveries:
    """The deliveries that one gateway makes. Safe to use from several threads."""

    def __init__(
        self,
        store: JobStore,
        sender: WebhookSender,
        *,
        results_max_age_s: float,
        count_attempt: Callable[[str], object] = lambda _: None,
        retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`count_attempt` is called with what an attempt led to: delivered, retried or failed."""
        self._store = store
        self._sender = sender
        self._results_max_age_s = results_max_age_s
        self._count_attempt = count_attempt
        self._retry_delays_s = retry_delays_s
        self._wall_clock = wall_clock
        self._random = random.SystemRandom()
        self._lock = threading.Lock()
        # Attempts that are being made, by client.
        self._busy: Counter[str] = Counter()
        self._due = threading.Event()
        self._is_closed = False

    def start(self) -> None:
        """Deliver what is due from now on, on a thread."""
        threading.Thread(target=self._run, name="webhooks", daemon=True).start()

    def close(self) -> None:
        """Begin no more attempts."""
        self._is_closed = True
        self._due.set()

    def wake(self) -> None:
        """Look at once for webhooks that are due."""
        self._due.set()

    def count_running(self) -> int:
        """Return the number of attempts that are being made."""
        with self._lock:
            return self._busy.total()

    def _run(self) -> None:
        while not self._is_closed:
            try:
                self._begin_attempts()
            except JobStoreError as error:
                _log.warning("webhooks cannot be read: %s", error)
            except Exception as error:  # noqa: BLE001 - the next round may succeed
                _log.exception("webhooks: %s", type(error).__name__)
            self._due.wait(POLL_INTERVAL_S)
            self._due.clear()

    def _begin_attempts(self) -> None:
        for _ in range(MAX_PER_ROUND):
            if self._is_closed or self.count_running() >= MAX_ATTEMPTS_AT_ONCE:
                return
            record = self._store.take_delivery(LEASE_S)
            if record is None:
                return
            with self._lock:
                is_allowed = self._busy[record.client_id] < MAX_PER_CLIENT
                if is_allowed:
                    self._busy[record.client_id] += 1
            if is_allowed:
                threading.Thread(target=self._attempt, args=(record,), name="webhook", daemon=True).start()
            else:
                self._store.note_delivery(record, BUSY_DELAY_S)

    def _attempt(self, record: JobRecord) -> None:
        try:
            body = json.dumps(describe_job(record, record.base_path, self._results_max_age_s)).encode()
            outcome = self._sender.send(record.webhook, record.id, body)
            self._note(record, outcome)
        except JobStoreError as error:  # the lease ends, and the message is sent once more
            _log.warning("%s: webhook of job %s: its state cannot be stored: %s", record.request_id, record.id, error)
        except Exception as error:  # noqa: BLE001 - a bug: the lease ends, and the log says why
            _log.exception("%s: webhook of job %s: %s", record.request_id, record.id, type(error).__name__)
        finally:
            with self._lock:
                self._busy[record.client_id] -= 1
                self._busy += Counter()  # drops clients without attempts
            self._due.set()

    def _note(self, record: JobRecord, outcome: AttemptOutcome) -> None:
        """Write what an attempt led to, and when the next one is due."""
        attempts = record.delivery.attempts + 1
        delay_s = None
        if outcome.may_retry and attempts <= len(self._retry_delays_s):
            delay_s = self._retry_delays_s[attempts - 1] * self._random.uniform(1 - JITTER, 1 + JITTER)
        result = "delivered" if outcome.is_delivered else "failed" if delay_s is None else "retried"
        delivery = Delivery(
            state="pending" if result == "retried" else "delivered" if outcome.is_delivered else "failed",
            attempts=attempts,
            last_status=outcome.status,
            last_error=outcome.reason,
            next_attempt_at=None if delay_s is None else self._wall_clock() + delay_s,
        )
        self._store.note_delivery(replace(record, delivery=delivery), delay_s)
        self._count_attempt(result)
        _log.log(
            logging.INFO if outcome.is_delivered else logging.WARNING,
            "%s: webhook of job %s: %s, attempt %d%s",
            record.request_id,
            record.id,
            result,
            attempts,
            f": {outcome.reason}" if outcome.reason else "",
        )
