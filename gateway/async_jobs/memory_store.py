"""Stores asynchronous jobs in the memory of one gateway. They are lost when it ends."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from cachetools import TTLCache

from gateway.async_jobs.record import JobRecord
from gateway.async_jobs.store import JobLimits, JobsFullError, KeyReusedError
from gateway.jobs.result_store import BeforeAfter, ResultStore, StoredImage

# Idempotency keys per job that is stored: a client may send keys whose jobs were forgotten.
_KEYS_PER_JOB = 2


class MemoryJobStore:
    """A `gateway.async_jobs.store.JobStore` in memory. Results are in the result store, within its bounds."""

    is_shared = False

    def __init__(self, limits: JobLimits, results: ResultStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._results = results
        self._clock = clock
        self._lock = threading.Lock()
        # In the order of their creation; a TTLCache expires them in this order too.
        self._jobs: TTLCache[str, JobRecord] = TTLCache(2 * limits.max_count, limits.max_age_s, timer=clock)
        # Time of the next attempt at each webhook that is not delivered, and a heap of these; some of it is outdated.
        self._due: dict[str, float] = {}
        self._due_heap: list[tuple[float, str]] = []
        # (client, key) -> (fingerprint, job).
        self._keys: TTLCache[tuple[str, str], tuple[str, str]] = TTLCache(
            _KEYS_PER_JOB * limits.max_count, limits.max_age_s, timer=clock
        )

    def claim_key(self, client_id: str, key: str, fingerprint: str, job_id: str) -> str:
        """Return the job of an Idempotency-Key: `job_id` if the key is new. Raises KeyReusedError."""
        with self._lock:
            known, owner = self._keys.setdefault((client_id, key), (fingerprint, job_id))
        if known != fingerprint:
            raise KeyReusedError
        return owner

    def release_key(self, client_id: str, key: str) -> None:
        """Forget an Idempotency-Key, because its job was not accepted."""
        with self._lock:
            self._keys.pop((client_id, key), None)

    def add(self, record: JobRecord, upload: bytes) -> None:
        """Store a new job. The job that runs holds its upload. Raises JobsFullError."""
        del upload
        with self._lock:
            self._jobs.expire()
            self._make_room([job for job in self._jobs.values() if job.client_id == record.client_id], is_client=True)
            self._make_room(list(self._jobs.values()), is_client=False)
            self._jobs[record.id] = record

    def get(self, job_id: str) -> JobRecord | None:
        """Return a job; None if it is not known."""
        with self._lock:
            self._jobs.expire()
            return self._jobs.get(job_id)

    def renew(self, record: JobRecord) -> bool:
        """Write the progress of a job; return False if it was cancelled."""
        with self._lock:
            return self._write(record)

    def finish(self, record: JobRecord, data: bytes | None) -> bool:
        """Write the final state of a job, with the bytes of its result; return False if it was cancelled."""
        name = ""
        if data is not None and record.result is not None:
            image = StoredImage(data, record.result["media_type"], record.result["filename"])
            name = self._results.put(BeforeAfter(None, image)) or ""
        with self._lock:
            is_written = self._write(_with_data(record, name))
        if name and not is_written:
            self._results.delete(name)
        return is_written

    def release(self, record: JobRecord) -> None:
        """Do nothing: no other gateway sees the job."""

    def take_abandoned(self) -> None:
        """Return None: no other gateway sees the jobs."""

    def read_result(self, record: JobRecord) -> bytes | None:
        """Return the bytes of a result; None if they were dropped."""
        stored = self._results.get(record.data_name)
        return stored.after.data if stored else None

    def cancel(self, record: JobRecord) -> bool:
        """Write the cancelled state of an unfinished job; return False if it has finished."""
        with self._lock:
            return self._write(record)

    def forget(self, record: JobRecord) -> None:
        """Forget a job with its result."""
        with self._lock:
            self._jobs.pop(record.id, None)
        self._results.delete(record.data_name)

    def take_delivery(self, lease_s: float) -> JobRecord | None:
        """Return an ended job whose webhook is due, and postpone it by a lease, in which the attempt must end."""
        with self._lock:
            self._jobs.expire()
            now = self._clock()
            while self._due_heap and self._due_heap[0][0] <= now:
                due, job_id = heapq.heappop(self._due_heap)
                if self._due.get(job_id) != due:
                    continue
                if (record := self._jobs.get(job_id)) is not None:
                    self._postpone(job_id, lease_s)
                    return record
                del self._due[job_id]  # the job was forgotten
        return None

    def note_delivery(self, record: JobRecord, retry_in_s: float | None) -> None:
        """Write how a delivery stands after an attempt; the next one is due after `retry_in_s`, None for no other."""
        with self._lock:
            known = self._jobs.get(record.id)
            if known is None or record.id not in self._due:
                return  # forgotten meanwhile
            self._jobs[record.id] = replace(known, delivery=record.delivery)
            if retry_in_s is None:
                del self._due[record.id]
            else:
                self._postpone(record.id, retry_in_s)

    def _postpone(self, job_id: str, delay_s: float) -> None:
        due = self._clock() + delay_s
        self._due[job_id] = due
        heapq.heappush(self._due_heap, (due, job_id))

    def _write(self, record: JobRecord) -> bool:
        """Replace the record of an unfinished job, at its place in the order of creation."""
        known = self._jobs.get(record.id)
        if known is None or known.is_finished:
            return False
        self._jobs[record.id] = record
        if record.is_finished and record.webhook:
            self._postpone(record.id, 0.0)
        return True

    def _make_room(self, jobs: list[JobRecord], *, is_client: bool) -> None:
        """Drop the oldest finished of some jobs until one more is within the limit."""
        surplus = len(jobs) + 1 - (self._limits.max_per_client if is_client else self._limits.max_count)
        if surplus <= 0:
            return
        finished = sorted((job for job in jobs if job.is_finished), key=lambda job: job.created_at)[:surplus]
        if len(finished) < surplus:
            raise JobsFullError
        for job in finished:
            self._jobs.pop(job.id, None)
            self._results.delete(job.data_name)


def _with_data(record: JobRecord, name: str) -> JobRecord:
    return replace(record, data_name=name)
