"""Stores asynchronous jobs in Redis, for several gateways. Each sees all and takes over those of one that has ended.

Redis's own clock decides when a lease ends.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace

from gateway.async_jobs import redis_scripts as scripts
from gateway.async_jobs.record import Delivery, JobRecord
from gateway.async_jobs.redis_data import PREFIX, RedisData
from gateway.async_jobs.store import JobLimits, JobsFullError, KeyReusedError

# Seconds after its last renewal for which a gateway keeps a job: ten renewals.
LEASE_S = 10.0


class RedisJobStore:
    """A `gateway.async_jobs.store.JobStore` in Redis."""

    is_shared = True

    def __init__(self, data: RedisData, limits: JobLimits, *, lease_s: float = LEASE_S) -> None:
        """`data` has the uploads and results."""
        self._data = data
        self._limits = limits
        self._lease_s = lease_s
        self._gateway = secrets.token_hex(8)

    def claim_key(self, client_id: str, key: str, fingerprint: str, job_id: str) -> str:
        """Return the job of an Idempotency-Key: `job_id` if the key is new. Raises KeyReusedError."""
        value = f"{fingerprint} {job_id}"
        found = self._data.run(scripts.CLAIM_KEY, _hash(client_id, key), value, self._limits.max_age_s)
        known, _, owner = found.decode().partition(" ")
        if known != fingerprint:
            raise KeyReusedError
        return str(owner)

    def release_key(self, client_id: str, key: str) -> None:
        """Forget an Idempotency-Key, because its job was not accepted."""
        self._data.run(scripts.RELEASE_KEY, _hash(client_id, key))

    def add(self, record: JobRecord, upload: bytes) -> None:
        """Store a new job and take its lease. Raises JobsFullError."""
        limits = self._limits
        name = self._data.write(upload, limits.max_age_s, is_result=False)
        if not name:
            raise JobsFullError
        arguments = (record.id, record.to_json(), record.client_id, self._gateway, self._lease_s, name)
        bounds = (limits.max_age_s, limits.max_count, limits.max_per_client)
        if not self._data.run(scripts.ADD, *arguments, *bounds):
            self._data.drop(name)
            raise JobsFullError

    def get(self, job_id: str) -> JobRecord | None:
        """Return a job; None if it is not known."""
        found = self._data.call(lambda client: client.hmget(f"{PREFIX}job:{job_id}", "record", "attempts", "delivery"))
        return _read(*found) if found[0] else None

    def renew(self, record: JobRecord) -> bool:
        """Write the progress of a job and extend its lease; return False if it was cancelled or taken over."""
        return bool(self._data.run(scripts.RENEW, record.id, self._gateway, record.to_json(), self._lease_s))

    def finish(self, record: JobRecord, data: bytes | None) -> bool:
        """Write the final state of a job, with the bytes of its result; return False as `renew` does."""
        name = "" if data is None else self._data.write(data, self._limits.result_max_age_s, is_result=True)
        is_written = self._end(replace(record, data_name=name), self._gateway)
        if name and not is_written:
            self._data.drop(name)
        return is_written

    def release(self, record: JobRecord) -> None:
        """Give a lease back, so that another gateway takes the job over at once."""
        self._data.run(scripts.RELEASE, record.id, self._gateway)

    def take_abandoned(self) -> tuple[JobRecord, bytes | None] | None:
        """Take the lease of a job whose gateway has ended; return it with its upload, None if that is gone."""
        found = self._data.run(scripts.TAKE, self._gateway, self._lease_s, self._limits.max_age_s)
        if not found:
            return None
        record = replace(_read(found[0], found[1]), state="queued", bands_done=0, left_s=None)
        return record, self._data.read((found[2] or b"").decode())

    def read_result(self, record: JobRecord) -> bytes | None:
        """Return the bytes of a result; None if they were dropped."""
        return self._data.read(record.data_name)

    def cancel(self, record: JobRecord) -> bool:
        """Write the cancelled state of a job of any gateway; return False if it has finished."""
        return self._end(record, "*")

    def forget(self, record: JobRecord) -> None:
        """Forget a job with its upload and result."""
        self._data.run(scripts.FORGET, record.id)

    def take_delivery(self, lease_s: float) -> JobRecord | None:
        """Return an ended job whose webhook is due, and postpone it by a lease, in which the attempt must end."""
        found = self._data.run(scripts.TAKE_DELIVERY, lease_s)
        return _read(*found) if found else None

    def note_delivery(self, record: JobRecord, retry_in_s: float | None) -> None:
        """Write how a delivery stands after an attempt; the next one is due after `retry_in_s`, None for no other."""
        delay_s = -1.0 if retry_in_s is None else retry_in_s
        self._data.run(scripts.NOTE_DELIVERY, record.id, record.delivery.to_json(), delay_s)

    def _end(self, record: JobRecord, lease: str) -> bool:
        has_webhook = "1" if record.webhook else "0"
        arguments = (record.id, lease, record.to_json(), record.state, record.data_name, has_webhook)
        return bool(self._data.run(scripts.FINISH, *arguments))


def _read(text: bytes, attempts: bytes | int, delivery: bytes | None = None) -> JobRecord:
    record = replace(JobRecord.from_json(text), attempts=int(attempts))
    return replace(record, delivery=Delivery.from_json(delivery)) if delivery else record


def _hash(client_id: str, key: str) -> str:
    return hashlib.sha256(f"{client_id}\0{key}".encode()).hexdigest()
