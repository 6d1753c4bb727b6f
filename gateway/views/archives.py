"""Several images in one request: their results come back as a ZIP, at once or as the result of an asynchronous job.

Either all images are admitted, each charged like a request of its own, or none. After that each stands alone: one that
fails is refunded, and the report in the archive has its problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain

from flask import Response, request

from gateway.access.admitted_request import AdmittedRequest
from gateway.async_jobs.archives import pack_uploads
from gateway.cancellation import CancelledError
from gateway.jobs.archive import MEDIA_TYPE, ArchiveWriter
from gateway.jobs.archive_job import (
    ARCHIVE_NAME,
    ArchiveImage,
    ArchiveJob,
    ArchiveMember,
    describe_member,
    describe_report,
)
from gateway.jobs.job import Job
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.refusals import queue_full
from gateway.jobs.request_body import SentImage
from gateway.jobs.result_cache import CachedJob
from gateway.jobs.runner import ANONYMOUS
from gateway.jobs.upload_memory import Reservation
from gateway.problems import Problem
from gateway.services import services
from gateway.views.async_jobs import AsyncWork, accept_work
from gateway.views.hooks import request_id
from gateway.views.image_response import slices
from gateway.views.jobs import CLIENT_CLOSED_REQUEST, find_budget_problem
from gateway.views.request_record import request_record


def wants_archive() -> bool:
    """Return whether the request accepts a ZIP by name."""
    return any(media_type == MEDIA_TYPE and quality > 0 for media_type, quality in request.accept_mimetypes)


def accept_archive(
    sent: Sequence[SentImage],
    parameters: dict[str, str],
    admitted: AdmittedRequest,
    reservation: Reservation | None,
    webhook: str,
) -> Response:
    """Start an asynchronous job of several images and return 202 with its URL."""
    _raise_if_all_rejected(sent)
    jobs, base_path = services().async_jobs, request.script_root
    images = [_to_image(each) for each in sent]
    own_id, api_key = request_id(), admitted.client.api_key
    admissions: list[AdmittedRequest] = []

    def start() -> Job:
        job = jobs.make_archive_job(
            images,
            request_id=own_id,
            client_name=api_key.name if api_key else ANONYMOUS,
            client_id=admitted.client.id,
            describe_problem=lambda problem: problem.body(own_id, base_path),
        )
        admissions.extend(_admit(images, admitted))
        return job

    work = AsyncWork(
        "\0".join(each.stem for each in sent),
        [each.request.upload.data if each.request else b"" for each in sent],
        lambda: pack_uploads(images),
        start,
        lambda problem: [image.on_problem(problem) for image in images],
        lambda: [hit for own in admissions for hit in own.shared_hits()],
        images=len(images),
    )
    return accept_work(work, parameters, admitted, reservation, webhook)


def send_archive(sent: Sequence[SentImage], admitted: AdmittedRequest) -> Response:
    """Upscale several images and send each result as it is finished; raise a Problem if none succeeds."""
    _raise_if_all_rejected(sent)
    threads = services().archive_threads
    if not threads.acquire(blocking=False):
        state = services().queue.state()
        raise queue_full(state.waiting, state.retry_after_s)
    with ExitStack() as at_end:
        at_end.callback(threads.release)
        response = _start_archive(sent, admitted, at_end)
        response.call_on_close(at_end.pop_all().close)
    return response


def _start_archive(sent: Sequence[SentImage], admitted: AdmittedRequest, at_end: ExitStack) -> Response:
    images = [_to_image(each) for each in sent]
    _admit(images, admitted)
    own_id, base_path, api_key, record = request_id(), request.script_root, admitted.client.api_key, request_record()
    runner = services().runner

    def submit(upscale_request: UpscaleRequest) -> Job:
        name = api_key.name if api_key else ANONYMOUS
        return runner.submit(upscale_request, own_id, name, admitted.client.id, record.traceparent)

    job = ArchiveJob(
        images,
        submit,
        request_id=own_id,
        describe_problem=lambda problem: problem.body(own_id, base_path),
        is_shutting_down=lambda: False,  # the images that are left fail, and the archive is completed
        slot_limit_s=runner.deadline_s,
    )
    at_end.callback(job.cancel_token.cancel)
    at_end.callback(services().disconnects.watch(request.environ.get("gunicorn.socket"), job.cancel_token))
    members = job.members()
    try:
        first = next(members)
    except CancelledError:
        return Response(status=CLIENT_CLOSED_REQUEST)
    response = Response(_stream(chain([first], members)), mimetype=MEDIA_TYPE)
    response.headers.set("Content-Disposition", "attachment", filename=ARCHIVE_NAME)
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"  # as for images
    response.headers["X-Superres-Images"] = str(len(images))
    if rejected := sum(each.request is None for each in sent):
        response.headers["X-Superres-Notes"] = (
            f"{rejected} of {len(images)} images were rejected: report.json in the archive says why."
        )
    return response


def _stream(members: Iterable[ArchiveMember]) -> Iterator[bytes]:
    writer, described = ArchiveWriter(), []
    try:
        for member in members:
            name = None
            if member.result is not None:
                name, data = writer.add(member.result.filename, member.result.data)
                yield from slices(memoryview(data))
            described.append(describe_member(member, name))
    except CancelledError:
        return  # the client has disconnected
    yield from slices(memoryview(writer.finish(describe_report(described))))


def _raise_if_all_rejected(sent: Sequence[SentImage]) -> None:
    if all(each.request is None for each in sent):
        raise next(each.problem for each in sent if each.problem)


def _to_image(sent: SentImage) -> ArchiveImage:
    problem = sent.problem.body(request_id(), request.script_root) if sent.problem else None
    return ArchiveImage(sent.stem, sent.request, problem)


def _admit(images: Sequence[ArchiveImage], admitted: AdmittedRequest) -> list[AdmittedRequest]:
    """Charge all images, or none: raise the Problem of the first that is not admitted. Return the admissions."""
    cache, record = services().result_cache, request_record()
    others: list[AdmittedRequest] = []
    first = next(image for image in images if image.request)
    record.note_images(len(images))
    try:
        for image in images:
            if image.request is None:
                continue
            own = admitted
            if image is not first:
                own = admitted.another()
                others.append(own)
                own.charge_request()
            image.request = cache.recall(image.request)
            found = cache.get(image.request)
            record.note_upload(image.request, in_cache=found is not None)
            if found:
                image.cached = CachedJob(image.request, request_id(), found)
                continue
            if problem := find_budget_problem():
                raise problem
            own.charge_pixels(image.request.pixels)
            image.on_problem = _refund(own)
    except Problem:
        for own in others:
            own.refund_all()
        raise
    return [admitted, *others]


def _refund(admitted: AdmittedRequest) -> Callable[[Problem], object]:
    """Return the function that counts the problem of an image and refunds it."""
    metrics = services().metrics

    def refund(problem: Problem) -> None:
        metrics.count_problem(problem.slug)
        admitted.refund_for(problem)

    return refund
