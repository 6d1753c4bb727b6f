"""What stores asynchronous jobs: the interface of the memory of one gateway and of the Redis that several share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.async_jobs.record import JobRecord


class JobsFullError(Exception):
    """The maximum number of unfinished jobs, or of bytes of their uploads, is reached."""


class KeyReusedError(Exception):
    """The client sent another request with the same Idempotency-Key before."""


class JobStoreError(Exception):
    """The store cannot be used now. The message says why."""


@dataclass(frozen=True)
class JobLimits:
    """The bounds of a store."""

    max_count: int
    """Maximum number of jobs, finished ones included. The oldest finished ones are dropped first."""
    max_per_client: int
    """The same for one client."""
    max_age_s: float
    """Seconds for which a job and an Idempotency-Key are known."""
    result_max_age_s: float
    """Seconds for which a result is stored."""


class JobStore(Protocol):
    """Stores jobs with their uploads and results. Safe to use from several threads.

    Each method may raise JobStoreError. A gateway holds a lease of each job that it works on. Without the lease it
    can change nothing: one that was stopped for a while finds that another one has taken over.
    """

    @property
    def is_shared(self) -> bool:
        """Whether other gateways see the jobs and take over those of a gateway that has ended."""
        ...

    def claim_key(self, client_id: str, key: str, fingerprint: str, job_id: str) -> str:
        """Return the job of an Idempotency-Key: `job_id` if the key is new. Raises KeyReusedError."""
        ...

    def release_key(self, client_id: str, key: str) -> None:
        """Forget an Idempotency-Key, because its job was not accepted."""
        ...

    def add(self, record: JobRecord, upload: bytes) -> None:
        """Store a new job and take its lease. Raises JobsFullError."""
        ...

    def get(self, job_id: str) -> JobRecord | None:
        """Return a job; None if it is not known."""
        ...

    def renew(self, record: JobRecord) -> bool:
        """Write the progress of a job and extend its lease; return False if it was cancelled or taken over."""
        ...

    def finish(self, record: JobRecord, data: bytes | None) -> bool:
        """Write the final state of a job, with the bytes of its result; return False as `renew` does.

        From then on its webhook is due, if it has one.
        """
        ...

    def release(self, record: JobRecord) -> None:
        """Give a lease back, so that another gateway takes the job over at once."""
        ...

    def take_abandoned(self) -> tuple[JobRecord, bytes | None] | None:
        """Take the lease of a job whose gateway has ended; return it with its upload, None if that is gone."""
        ...

    def read_result(self, record: JobRecord) -> bytes | None:
        """Return the bytes of a result; None if they were dropped."""
        ...

    def cancel(self, record: JobRecord) -> bool:
        """Write the cancelled state of a job of any gateway; return False if it has finished."""
        ...

    def forget(self, record: JobRecord) -> None:
        """Forget a job with its upload, its result and the delivery of its webhook."""
        ...

    def take_delivery(self, lease_s: float) -> JobRecord | None:
        """Return an ended job whose webhook is due, and postpone it by a lease, in which the attempt must end."""
        ...

    def note_delivery(self, record: JobRecord, retry_in_s: float | None) -> None:
        """Write how a delivery stands after an attempt; the next one is due after `retry_in_s`, None for no other."""
        ...
