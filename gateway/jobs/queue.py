"""A bounded job queue, fair across clients.

A job takes memory and backend time only while it holds a running slot, so the capacity of the queue bounds both. A free
slot goes to the client with the fewest running jobs; between equals, to the client that was served longest ago; then to
the job that came first. A client that sends many images therefore waits behind its own jobs, never others behind it.
Clients that a full queue turns away get a reservation.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from gateway.cancellation import CancelToken

Clock = Callable[[], float]

# Weight of the latest job in the moving average of job times.
_LATEST_JOB_WEIGHT = 0.2

# How long a client may return after its time before its reservation expires.
RESERVATION_GRACE_S = 5.0

# Reservations per slot (running and waiting). Clients beyond that get a time to retry but no reservation: with an
# unbounded list, 1,000 clients that never returned kept everybody else out of an empty queue for 20 minutes.
RESERVATIONS_PER_SLOT = 4


class QueueFullError(Exception):
    """The queue is full. `retry_after_s` estimates when it will have a slot for this client."""

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        super().__init__(f"The queue is full ({waiting} jobs waiting).")
        self.waiting = waiting
        self.retry_after_s = retry_after_s


class ClientQueueFullError(QueueFullError):
    """The client already has the maximum number of waiting jobs. The queue may still have free slots."""


class QueueTimeoutError(Exception):
    """The deadline passed before the job could start."""


class QueuePosition(NamedTuple):
    """The position of a job in the queue."""

    position: int
    """Position among the waiting jobs, from 1; 0 once the job runs."""
    ahead: int
    """Number of running and waiting jobs that are ahead of this job."""


RUNNING = QueuePosition(0, 0)


@dataclass(frozen=True)
class QueueState:
    """The number of running and waiting jobs, and whether the queue is full."""

    running: int
    waiting: int
    is_full: bool
    retry_after_s: float
    """Estimated seconds until a new client would get a slot."""


@dataclass(frozen=True)
class Capacity:
    """Maximum numbers of running and waiting jobs, and of bytes that running jobs need."""

    running: int
    waiting: int
    small_per_running: int = 1
    """Small jobs that count as one running job: they share batches of the backend."""
    waiting_per_client: int = 1_000_000
    working_bytes: int = 1 << 62
    """Memory for all running jobs together. A job that needs more runs alone."""


class Reservations:
    """Queue slots reserved for rejected clients, in the order of their rejections.

    Without reservations, a client that was just served and returns at once takes the slot that others are about to
    come back for. Measured with 50 clients that sent requests for a minute: half got nothing and one got 16 images.
    Not safe to use from several threads.
    """

    def __init__(self, max_count: int) -> None:
        self._max_count = max_count
        # Client id -> time at which the client may return.
        self._due: dict[str, float] = {}

    def count_ahead(self, client_id: str, now: float, until: float = math.inf) -> int:
        """Return the number of reservations due by `until` that are older than the client's; all if it has none."""
        for expired in [holder for holder, due in self._due.items() if due + RESERVATION_GRACE_S < now]:
            del self._due[expired]
        ahead = 0
        for holder, due in self._due.items():
            if holder == client_id:
                break
            ahead += due <= until
        return ahead

    def add(self, client_id: str, due: float) -> None:
        """Reserve a slot at `due`. A client that has a reservation keeps its rank; beyond the maximum, do nothing."""
        if client_id in self._due or len(self._due) < self._max_count:
            self._due[client_id] = due

    def remove(self, client_id: str) -> None:
        """Remove the reservation of a client that got its slot."""
        self._due.pop(client_id, None)


class JobQueue:
    """A bounded, fair queue in front of a bounded number of running jobs. Safe to use from several threads."""

    def __init__(self, capacity: Capacity, *, clock: Clock = time.monotonic, usual_job_s: float = 5.0) -> None:
        """`usual_job_s` is the assumed time of a job until the first one finishes."""
        self._capacity = capacity
        self._clock = clock
        self._lock = threading.Lock()
        # Running jobs by client id; clients without any are absent.
        self._running: Counter[str] = Counter()
        self._running_bytes = 0
        # A small job is one part of a running job.
        self._running_parts = 0
        # In the order of arrival.
        self._waiting: list[QueueSlot] = []
        self._reservations = Reservations(RESERVATIONS_PER_SLOT * (capacity.running + capacity.waiting))
        # Sequence number of the latest started job of each client that runs or waits.
        self._last_started: dict[str, int] = {}
        self._started_count = 0
        # Moving average of the seconds that a job takes.
        self._usual_job_s = usual_job_s

    def state(self) -> QueueState:
        """Return the current state of the queue."""
        with self._lock:
            running, waiting = self._running.total(), len(self._waiting)
            now = self._clock()
            starts_at_once = self._has_parts(self._capacity.small_per_running) and not waiting
            is_full = not starts_at_once and not self._may_wait("", now)
            ahead = self._reservations.count_ahead("", now) if is_full else 0
            return QueueState(running, waiting, is_full, self._estimate_s(ahead))

    def estimate_wait_s(self, position: int | None = None) -> float:
        """Return the estimated seconds until the job at a position starts; without one, a job that enters now."""
        with self._lock:
            if position is not None:
                return self._estimate_s(position - 1) if position else 0.0
            waiting = len(self._waiting)
            starts_at_once = self._has_parts(self._capacity.small_per_running) and not waiting
            return 0.0 if starts_at_once else self._estimate_s(waiting)

    def acquire(self, client_id: str = "", working_bytes: int = 0, *, is_small: bool = False) -> QueueSlot:
        """Return a running slot, or a waiting one if all are taken.

        Raises QueueFullError or ClientQueueFullError at once if no slot is free. The caller must release the slot.
        """
        with self._lock:
            parts = 1 if is_small else self._capacity.small_per_running
            slot, now = QueueSlot(self, client_id, working_bytes, parts), self._clock()
            if not self._waiting and self._fits(slot):  # a reservation must not keep the backend idle
                self._reservations.remove(client_id)
                self._start(slot)
                return slot
            own = sum(other.client_id == client_id for other in self._waiting)
            if own >= self._capacity.waiting_per_client:
                raise ClientQueueFullError(own, self._estimate_s(own))
            if not self._may_wait(client_id, now):
                retry_after_s = self._estimate_s(self._reservations.count_ahead(client_id, now))
                self._reservations.add(client_id, now + retry_after_s)
                raise QueueFullError(len(self._waiting), retry_after_s)
            self._reservations.remove(client_id)
            self._waiting.append(slot)
            return slot

    def position(self, slot: QueueSlot) -> QueuePosition:
        """Return the position of a slot in the queue."""
        with self._lock:
            if slot not in self._waiting:
                return RUNNING
            ahead = self._in_start_order().index(slot)
            return QueuePosition(ahead + 1, self._running.total() + ahead)

    def release(self, slot: QueueSlot) -> None:
        """Give a running or waiting slot back and start the jobs that now fit."""
        with self._lock:
            if slot in self._waiting:
                self._waiting.remove(slot)
            else:
                if slot.has_finished:
                    seconds = self._clock() - slot.started_at
                    self._usual_job_s += _LATEST_JOB_WEIGHT * (seconds - self._usual_job_s)
                self._running_bytes -= slot.working_bytes
                self._running_parts -= slot.parts
                self._running[slot.client_id] -= 1
                self._running += Counter()  # drops clients that have no running job
            self._forget(slot.client_id)
            # Only the first in the queue may start: a large job holds up small ones behind it, otherwise it would wait
            # for as long as small ones come. When such a large one leaves, those behind it may fit.
            while self._waiting and self._fits(first := self._in_start_order()[0]):
                self._waiting.remove(first)
                self._start(first)

    def _fits(self, slot: QueueSlot) -> bool:
        return not self._running or (
            self._has_parts(slot.parts) and self._running_bytes + slot.working_bytes <= self._capacity.working_bytes
        )

    def _has_parts(self, parts: int) -> bool:
        return self._running_parts + parts <= self._capacity.running * self._capacity.small_per_running

    def _may_wait(self, client_id: str, now: float) -> bool:
        """Return whether a waiting slot is free and not reserved for a client that returns while this one waits."""
        waiting = len(self._waiting)
        starts_at = now + self._estimate_s(waiting)
        return waiting + self._reservations.count_ahead(client_id, now, starts_at) < self._capacity.waiting

    def _forget(self, client_id: str) -> None:
        if client_id not in self._running and all(other.client_id != client_id for other in self._waiting):
            self._last_started.pop(client_id, None)

    def _start(self, slot: QueueSlot) -> None:
        self._started_count += 1
        self._last_started[slot.client_id] = self._started_count
        self._running_bytes += slot.working_bytes
        self._running_parts += slot.parts
        self._running[slot.client_id] += 1
        slot.start(self._clock())

    def _in_start_order(self) -> list[QueueSlot]:
        """Return the waiting slots in the order in which they will start if no other job arrives."""
        seen: Counter[str] = Counter()
        first_arrivals: dict[str, int] = {}
        keys = []
        for arrival, slot in enumerate(self._waiting):
            client_id = slot.client_id
            own, first = seen[client_id], first_arrivals.setdefault(client_id, arrival)
            keys.append((self._running[client_id] + own, own, self._last_started.get(client_id, 0), first))
            seen[client_id] += 1
        return [slot for _, slot in sorted(zip(keys, self._waiting, strict=True), key=lambda pair: pair[0])]

    def _estimate_s(self, ahead: int) -> float:
        """Return the seconds until `ahead` jobs and one more will have finished."""
        return self._usual_job_s * (ahead + 1) / self._capacity.running


class QueueSlot:
    """One job's slot: waiting at first if all running slots are taken, then running."""

    def __init__(self, queue: JobQueue, client_id: str, working_bytes: int, parts: int) -> None:
        self._queue = queue
        self._started = threading.Event()
        self.client_id = client_id
        self.working_bytes = working_bytes
        """Maximum memory that the job needs, in bytes."""
        self.parts = parts
        """How much of `Capacity.running` the job takes: `small_per_running` parts are one running job."""
        self.started_at = 0.0
        """Clock time at which the job started."""
        self.has_finished = False
        """Whether the job produced a result. Failed and cancelled jobs do not count towards the usual job time."""

    @property
    def position(self) -> QueuePosition:
        """Position in the queue; `RUNNING` once the job may run."""
        return self._queue.position(self)

    def start(self, now: float) -> None:
        """Turn the waiting slot into a running one. Called by `JobQueue`."""
        self.started_at = now
        self._started.set()

    def wait(self, timeout_s: float, cancel_token: CancelToken) -> None:
        """Wait until the job may run; raise QueueTimeoutError or CancelledError."""
        with cancel_token.on_cancel(self._started.set):  # wakes the wait below
            is_woken = self._started.wait(timeout_s)
        cancel_token.raise_if_cancelled()
        if not is_woken:
            raise QueueTimeoutError

    def release(self) -> None:
        """Give the slot back."""
        self._queue.release(self)
