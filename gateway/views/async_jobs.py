"""Asynchronous jobs over HTTP: `Prefer: respond-async` (RFC 7240), status, result, and DELETE.

The public keys of their webhooks are in `gateway.views.webhooks`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from flask import Blueprint, Response, jsonify, request
from werkzeug.http import parse_options_header

from gateway.access.admitted_request import AdmittedRequest
from gateway.access.rate_limits import SharedHit
from gateway.async_jobs.jobs import RunningJob
from gateway.async_jobs.problems import (
    IdempotencyKeyReused,
    JobLost,
    JobNotFinished,
    JobsUnavailable,
    ResultExpired,
    UnknownJob,
)
from gateway.async_jobs.record import JobRecord, new_job_id, run_of
from gateway.async_jobs.status import describe_delivery, describe_job, job_url
from gateway.async_jobs.store import JobsFullError, JobStoreError, KeyReusedError
from gateway.jobs.archive_job import ArchiveJob
from gateway.jobs.job import Job
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.runner import ANONYMOUS
from gateway.jobs.upload_memory import Reservation
from gateway.problems import BadParameter, Problem, TooManyAtOnce, retry_later
from gateway.services import services
from gateway.views.access import authorize_poll
from gateway.views.hooks import request_id
from gateway.views.image_response import send_image
from gateway.views.jobs import keep_reservation, submit_job
from gateway.views.request_record import request_record

blueprint = Blueprint("async_jobs", __name__, url_prefix="/api/v1/jobs")

RESPOND_ASYNC = "respond-async"

# Printable ASCII, as draft-ietf-httpapi-idempotency-key-header has it. Clients send UUIDs.
_KEY = re.compile(r"[\x21-\x7e]{1,128}")

_FULL_RETRY_S = 30.0
_STORE_RETRY_S = 5.0


def wants_async() -> bool:
    """Return whether the request prefers an asynchronous response."""
    preferences = ",".join(request.headers.getlist("Prefer")).split(",")
    return any(parse_options_header(preference)[0].strip().lower() == RESPOND_ASYNC for preference in preferences)


@dataclass(frozen=True)
class AsyncWork:
    """What an asynchronous job is to do."""

    stem: str
    uploads: Sequence[bytes]
    pack: Callable[[], bytes]
    """Returns the uploads as one, for a store that other gateways read."""
    start: Callable[[], Job]
    """Charges the images and returns the job; raises a Problem if it is not accepted."""
    on_problem: Callable[[Problem], object]
    """Is called with the problem of a job that failed, to refund it."""
    charges: Callable[[], list[SharedHit]]
    """Returns what was charged in Redis."""
    images: int = 0
    """Number of images of a request with several; 0 for a request with one."""


def accept_job(
    upscale_request: UpscaleRequest,
    parameters: dict[str, str],
    admitted: AdmittedRequest,
    reservation: Reservation | None,
    webhook: str = "",
) -> Response:
    """Start a job of one image and return 202 with its URL. `webhook` is a URL that was checked, or empty."""
    work = AsyncWork(
        upscale_request.stem,
        [upscale_request.upload.data],
        lambda: upscale_request.upload.data,
        lambda: submit_job(upscale_request, admitted, reservation, request_id()),
        admitted.refund_for,
        admitted.shared_hits,
    )
    return accept_work(work, parameters, admitted, reservation, webhook)


def accept_work(
    work: AsyncWork,
    parameters: dict[str, str],
    admitted: AdmittedRequest,
    reservation: Reservation | None,
    webhook: str,
) -> Response:
    """Start a job and return 202 with its URL; for an Idempotency-Key that is known, that of the first job."""
    jobs, client_id = services().async_jobs, admitted.client.id
    job_id, key = new_job_id(jobs.run_id), _idempotency_key()
    sent = {**parameters, "webhook": webhook} if webhook else parameters
    with _store_errors():
        if key:
            try:
                owner = jobs.store.claim_key(client_id, key, _fingerprint(work, sent), job_id)
            except KeyReusedError:
                raise IdempotencyKeyReused(
                    "You have sent another image or other parameters with this Idempotency-Key. "
                    "Use a new key for each new request."
                ) from None
            if owner != job_id:
                return _accepted(owner)
        try:
            _start(_new_record(job_id, work, parameters, admitted, webhook), work, reservation)
        except BaseException:
            if key:
                jobs.store.release_key(client_id, key)
            raise
    return _accepted(job_id)


def _new_record(
    job_id: str, work: AsyncWork, parameters: dict[str, str], admitted: AdmittedRequest, webhook: str
) -> JobRecord:
    api_key = admitted.client.api_key
    return JobRecord(
        id=job_id,
        client_id=admitted.client.id,
        client_name=api_key.name if api_key else ANONYMOUS,
        request_id=request_id(),
        created_at=services().async_jobs.wall_clock(),
        parameters=parameters,
        stem=work.stem,
        images=work.images,
        webhook=webhook,
        base_path=request.script_root,
    )


def _start(record: JobRecord, work: AsyncWork, reservation: Reservation | None) -> None:
    jobs, metrics = services().async_jobs, services().metrics
    try:
        jobs.store.add(record, work.pack() if jobs.store.is_shared else b"")
    except JobsFullError:
        raise retry_later(
            TooManyAtOnce,
            "The maximum number of unfinished jobs is reached, or the memory for their uploads is full. "
            f"Try again in {_FULL_RETRY_S:.0f} seconds.",
            _FULL_RETRY_S,
        ) from None
    try:
        job = work.start()
    except BaseException:
        jobs.store.forget(record)
        raise
    job.counts_image = False
    request_record().note_async(record.id)
    record = replace(record, charges=work.charges())
    release_upload = keep_reservation(reservation)

    def on_problem(problem: Problem) -> None:
        metrics.count_problem(problem.slug)
        work.on_problem(problem)

    def on_end() -> None:
        release_upload()
        if isinstance(job, ArchiveJob):
            job.close()

    jobs.run(RunningJob(record, job, request.script_root, on_problem, on_end))


@blueprint.get("/<job_id>")
def status(job_id: str) -> Response:
    """Return the state of a job, and its result or problem once it has one."""
    record, running = _find(job_id), services()
    backend = None if record.is_finished else running.backend.state_tracker.current().describe()
    body = describe_job(record, request.script_root, running.settings.results_max_age_s, backend=backend)
    return jsonify({**body, "webhook": describe_delivery(record)})


@blueprint.get("/<job_id>/result")
def result(job_id: str) -> Response:
    """Return the image of a finished job as a download."""
    record = _find(job_id)
    if record.result is None:
        raise JobNotFinished(
            f"The job is {record.state}. Ask {_url(job_id)} for its state."
            if not record.is_finished
            else f"The job has no result: it is {record.state}. {_url(job_id)} says why."
        )
    with _store_errors():
        data = services().async_jobs.store.read_result(record)
    if data is None and not record.data_name:
        raise ResultExpired(
            f"The result of {record.result['bytes']:,} bytes does not fit into the memory for results. "
            "Send the image without `Prefer: respond-async`."
        )
    if data is None:
        minutes = round(services().settings.results_max_age_s / 60)
        raise ResultExpired(
            f"Results are kept for at most {minutes} minutes, less when many are made. Send the image again."
        )
    facts = record.result
    return send_image(data, facts["media_type"], facts["filename"], as_download=True, stored_as=record.data_name)


@blueprint.delete("/<job_id>")
def delete(job_id: str) -> Response:
    """Cancel an unfinished job, or forget a finished one with its result and the copy of it in the cache."""
    record, jobs = _find(job_id), services().async_jobs
    with _store_errors():
        if record.is_finished or not jobs.cancel(record):
            record = jobs.store.get(job_id) or record
            services().result_cache.forget_keys(record.cache_keys)
            jobs.store.forget(record)
    return Response(status=204)


def _find(job_id: str) -> JobRecord:
    """Return a job of the client; raise UnknownJob or JobLost.

    The response for a job of another client is the same as for an id that never existed.
    """
    admitted, jobs = authorize_poll(), services().async_jobs
    with _store_errors():
        record = jobs.find(job_id)
    if record is not None and record.client_id == admitted.client.id:
        return record
    if record is None and not jobs.store.is_shared and run_of(job_id) not in ("", jobs.run_id):
        raise JobLost(
            "This gateway has been restarted since it accepted the job, or another replica has it: without a shared "
            "Redis (SUPERRES_REDIS_URL), jobs are lost with the gateway that runs them. Send the image again."
        )
    raise UnknownJob(
        "You have no job with this id: it has expired, was deleted, or never existed. Send the image again."
    )


def _accepted(job_id: str) -> Response:
    response = jsonify({"id": job_id, "url": _url(job_id)})
    response.status_code = 202
    response.headers["Preference-Applied"] = RESPOND_ASYNC
    response.headers["Location"] = _url(job_id)
    return response


def _url(job_id: str) -> str:
    return job_url(request.script_root, job_id)


def _idempotency_key() -> str:
    """Return the Idempotency-Key of the request; empty without one. Raises BadParameter."""
    key = request.headers.get("Idempotency-Key", "").strip()
    if key and not _KEY.fullmatch(key):
        raise BadParameter(
            "Invalid Idempotency-Key: use 1 to 128 printable ASCII characters without spaces, such as a UUID.",
            parameter="Idempotency-Key",
        )
    return key


def _fingerprint(work: AsyncWork, parameters: dict[str, str]) -> str:
    """Return a hash of what a request with the same Idempotency-Key must repeat."""
    lengths = [len(upload) for upload in work.uploads]
    digest = hashlib.sha256(json.dumps([sorted(parameters.items()), work.stem, lengths]).encode())
    for upload in work.uploads:
        digest.update(upload)
    return digest.hexdigest()


@contextmanager
def _store_errors() -> Iterator[None]:
    """Turn an error of the store into a problem."""
    try:
        yield
    except JobStoreError as error:
        raise retry_later(
            JobsUnavailable,
            "The store of jobs cannot be reached. Try again in a few seconds, or send the image without "
            "`Prefer: respond-async`.",
            _STORE_RETRY_S,
        ) from error
