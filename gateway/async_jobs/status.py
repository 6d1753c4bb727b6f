"""The status of an asynchronous job as JSON members: of its URL and, once it has ended, of its webhook."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.async_jobs.record import JobRecord


def describe_job(
    record: JobRecord, base_path: str, results_max_age_s: float, *, backend: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the members of a status. `backend` is the state of the backend, for a job that has not ended."""
    url = job_url(base_path, record.id)
    body: dict[str, Any] = {
        "id": record.id,
        "state": record.state,
        "created_at": format_time(record.created_at),
        "finished_at": None if record.finished_at is None else format_time(record.finished_at),
        "queue": {"position": record.position, "ahead": record.ahead} if record.state == "queued" else None,
        "backend": None if record.is_finished else backend,
        "images": {"count": record.images, "done": record.images_done} if record.images else None,
        "bands_done": record.bands_done,
        "bands": record.bands,
        "left_s": None if record.left_s is None else round(record.left_s, 1),
        "gpu_s": round(record.gpu_s, 3),
        "attempts": record.attempts,
        "problem": record.problem,
        "result": None,
    }
    if record.result is not None and record.finished_at is not None:
        expires_at = format_time(record.finished_at + results_max_age_s)
        body["result"] = {**record.result, "url": f"{url}/result", "expires_at": expires_at}
    return body


def describe_delivery(record: JobRecord) -> dict[str, Any] | None:
    """Return how the delivery of a job's webhook stands; None if it has none."""
    if not record.webhook:
        return None
    delivery = record.delivery
    return {
        "url": record.webhook,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "last_status": delivery.last_status,
        "last_error": delivery.last_error or None,
        "next_attempt_at": None if delivery.next_attempt_at is None else format_time(delivery.next_attempt_at),
    }


def job_url(base_path: str, job_id: str) -> str:
    """Return the path of a job."""
    return f"{base_path}/api/v1/jobs/{job_id}"


def format_time(seconds: float) -> str:
    """Return a time since 1970 as in RFC 3339, in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
