"""The calls for asynchronous jobs, as generators of effects: submit, status, wait, result, delete."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from superres.client.calls import ApiCalls
from superres.client.download import download_result
from superres.client.effects import Pause, Report, ResponseHead, Send, Steps
from superres.client.errors import (
    ClientError,
    ConnectionFailedError,
    DownloadFailedError,
    JobCancelledError,
    ProblemError,
    UnexpectedResponseError,
    WaitTimeoutError,
    problem_from,
)
from superres.client.images import ImageFile
from superres.client.progress import UpscaleProgress, progress_from_job
from superres.client.result import ByteSink, OpenSink, ResultFacts, read_facts

UpscaleState = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
_STATES: tuple[UpscaleState, ...] = get_args(UpscaleState)
_UNFINISHED = ("queued", "running")
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


@dataclass(frozen=True)
class UpscaleStatus:
    """The state of an asynchronous job."""

    id: str
    state: UpscaleState
    progress: UpscaleProgress | None
    """What it does; None once it has ended."""
    left_s: float | None
    """Estimated seconds left; None without an estimate."""
    gpu_s: float
    """Seconds that the network has worked for it."""
    problem: ProblemError | None
    """Why it failed or was lost."""
    members: Mapping[str, Any] = field(repr=False)
    """All members of the status (docs/reference/api.md)."""

    @property
    def is_finished(self) -> bool:
        """Whether the state is final."""
        return self.state not in _UNFINISHED


def submit_job(calls: ApiCalls, image: ImageFile, query: Mapping[str, str], idempotency_key: str) -> Steps[str]:
    """Start a job and return its id. The key makes it safe to send the request again: it is the same job."""
    headers = {**calls.upload_headers(), "Prefer": "respond-async", "Idempotency-Key": idempotency_key}
    request = Send("POST", "/api/v1/upscale", query, headers, image.data)
    members = yield from calls.retrying(lambda: calls.read_json(request, 202))
    return check_job_id(str(members.get("id")))


def check_job_id(job_id: str) -> str:
    """Return an id that can be part of a path. Raises UnexpectedResponseError."""
    if not _JOB_ID.fullmatch(job_id):
        raise UnexpectedResponseError(f"Invalid id of a job: {job_id[:200]!r}.")
    return job_id


def read_status(calls: ApiCalls, job_id: str) -> Steps[UpscaleStatus]:
    """Return the state of a job."""
    request = calls.with_key(Send("GET", _path(job_id)))
    members = yield from calls.retrying(lambda: calls.read_json(request, 200))
    state, problem = members.get("state"), members.get("problem")
    if state not in _STATES:
        raise UnexpectedResponseError(f"The service sent an unknown state of a job: {str(state)[:40]!r}.")
    left_s, gpu_s = members.get("left_s"), members.get("gpu_s")
    return UpscaleStatus(
        id=job_id,
        state=state,
        progress=progress_from_job(members),
        left_s=float(left_s) if isinstance(left_s, int | float) else None,
        gpu_s=float(gpu_s) if isinstance(gpu_s, int | float) else 0.0,
        problem=problem_from(problem) if isinstance(problem, dict) else None,
        members=members,
    )


def wait_for_job(calls: ApiCalls, job_id: str, poll_s: float, timeout_s: float | None) -> Steps[UpscaleStatus]:
    """Ask for the state every `poll_s` seconds until it is final. Raises WaitTimeoutError after `timeout_s`."""
    ends_at = None if timeout_s is None else calls.clock() + timeout_s
    shown: UpscaleProgress | None = None
    while True:
        status = yield from read_status(calls, job_id)
        if status.progress and status.progress != shown:
            shown = status.progress
            yield Report(shown)
        if status.is_finished:
            return status
        left_s = poll_s if ends_at is None else min(poll_s, ends_at - calls.clock())
        if left_s <= 0:
            raise WaitTimeoutError(f"The job was not finished after {timeout_s:g} s: it is {status.state}.")
        yield Pause(left_s)


def read_job_result(
    calls: ApiCalls, job_id: str, stem: str, open_sink: OpenSink, poll_s: float, timeout_s: float | None
) -> Steps[ResultFacts]:
    """Wait for a job, and write its result to what `open_sink` opens."""
    status = yield from wait_for_success(calls, job_id, poll_s, timeout_s)
    result = status.members.get("result") or {}
    if status.members.get("images"):
        raise UnexpectedResponseError(f"The job {job_id} has several images: read it with `batch_job`.")
    facts = read_facts(result, stem, "")
    with open_sink(facts) as sink:
        yield from download_job_result(calls, job_id, facts.size_bytes, sink)
    return facts


def wait_for_success(calls: ApiCalls, job_id: str, poll_s: float, timeout_s: float | None) -> Steps[UpscaleStatus]:
    """Wait for a job. Raises JobCancelledError, and ProblemError for a job that failed or was lost."""
    status = yield from wait_for_job(calls, job_id, poll_s, timeout_s)
    if status.problem:
        raise status.problem
    if status.state == "cancelled":
        raise JobCancelledError(f"The job {job_id} was cancelled.")
    return status


def download_job_result(calls: ApiCalls, job_id: str, size_bytes: int, sink: ByteSink) -> Steps[None]:
    """Write the result of a finished job to `sink`; after a lost connection go on where it broke off.

    Raises DownloadFailedError if it breaks too often: the job still has the result.
    """
    try:
        yield from download_result(calls, calls.with_key(Send("GET", f"{_path(job_id)}/result")), size_bytes, sink)
    except ConnectionFailedError as error:
        raise DownloadFailedError(
            f"{error} The job {job_id} keeps its result for a while: ask for it again."
        ) from error


def delete_job(calls: ApiCalls, job_id: str) -> Steps[None]:
    """Cancel an unfinished job, or forget a finished one with its result. One that is gone is deleted."""

    yield from calls.retrying(lambda: _delete_once(calls, job_id))


def abandon_job(calls: ApiCalls, job_id: str) -> Steps[None]:
    """Delete a job after its use, with one attempt: the service forgets it by itself later if this fails."""
    with contextlib.suppress(ClientError):
        yield from _delete_once(calls, job_id)


def _delete_once(calls: ApiCalls, job_id: str) -> Steps[None]:
    head: ResponseHead = yield calls.with_key(Send("DELETE", _path(job_id)))
    if head.status not in (204, 404, 410):
        yield from calls.fail(head)


def _path(job_id: str) -> str:
    return f"/api/v1/jobs/{job_id}"
