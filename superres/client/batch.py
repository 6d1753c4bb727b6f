"""Several images in one request: the multipart body, its response, and the same as an asynchronous job."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import httpx

from superres.client.archives import MAX_BYTES, MEDIA_TYPE, BatchItem, read_archive
from superres.client.calls import ApiCalls
from superres.client.effects import Report, ResponseHead, Send, Steps, read_chunk
from superres.client.errors import UnexpectedResponseError
from superres.client.images import ImageFile, ImageSource, read_image
from superres.client.job_calls import check_job_id, download_job_result, wait_for_success
from superres.client.progress import UpscaleProgress
from superres.client.result import FileSink, is_file_name

# Nothing is sent while an image is upscaled, and each may take as long as the service permits (`deadline_s`).
_SILENCE_S = 900.0


def read_images(images: Iterable[ImageSource]) -> list[ImageFile]:
    """Read the images to send. Raises ImageFileError."""
    return [read_image(image) for image in images]


def check_folder(to: str | os.PathLike[str] | None) -> Path | None:
    """Return the folder of the results. Raises NotADirectoryError, before any work."""
    if to is not None and not Path(to).is_dir():
        raise NotADirectoryError(f"The folder of the results does not exist: {Path(to)}")
    return None if to is None else Path(to)


def upscale_batch(
    calls: ApiCalls, images: Sequence[ImageFile], query: Mapping[str, str], folder: Path | None
) -> Steps[list[BatchItem]]:
    """Upscale images in one request. Their results are in memory, or in the folder."""
    return (yield from calls.retrying(lambda: _upscale_once(calls, images, query, folder)))


def submit_batch(
    calls: ApiCalls, images: Sequence[ImageFile], query: Mapping[str, str], idempotency_key: str
) -> Steps[str]:
    """Start a job of several images and return its id. The key makes it safe to send the request again."""
    body, media_type = _encode_form(images)
    headers = {"Accept": MEDIA_TYPE, "Content-Type": media_type, "Prefer": "respond-async"}
    headers["Idempotency-Key"] = idempotency_key
    request = calls.with_key(Send("POST", "/api/v1/upscale", query, headers, body))
    members = yield from calls.retrying(lambda: calls.read_json(request, 202))
    return check_job_id(str(members.get("id")))


def read_batch_results(
    calls: ApiCalls, job_id: str, folder: Path | None, poll_s: float, timeout_s: float | None
) -> Steps[list[BatchItem]]:
    """Wait for a job of several images, and return what became of each. The ZIP is a file meanwhile, not memory."""
    size_bytes, _ = yield from _wait_for_archive(calls, job_id, poll_s, timeout_s)
    with tempfile.TemporaryFile(dir=folder) as spool:
        yield from download_job_result(calls, job_id, size_bytes, spool)
        return read_archive(spool, folder, "")


def save_batch_archive(
    calls: ApiCalls, job_id: str, target: FileSink, poll_s: float, timeout_s: float | None
) -> Steps[None]:
    """Wait for a job of several images, and write the ZIP of their results to a file as it arrives."""
    size_bytes, filename = yield from _wait_for_archive(calls, job_id, poll_s, timeout_s)
    with target.open_named(filename) as file:
        yield from download_job_result(calls, job_id, size_bytes, file)


def _wait_for_archive(calls: ApiCalls, job_id: str, poll_s: float, timeout_s: float | None) -> Steps[tuple[int, str]]:
    """Return size and file name of the ZIP of a job."""
    status = yield from wait_for_success(calls, job_id, poll_s, timeout_s)
    result = status.members.get("result") or {}
    size_bytes, filename = result.get("bytes"), str(result.get("filename"))
    if result.get("media_type") != MEDIA_TYPE:
        raise UnexpectedResponseError(f"The job {job_id} has one image: read it with `job` instead of `batch_job`.")
    if not isinstance(size_bytes, int) or not 0 < size_bytes <= MAX_BYTES or not is_file_name(filename):
        raise UnexpectedResponseError(f"The service sent an invalid result: {filename[:200]!r} of {size_bytes} bytes.")
    return size_bytes, filename


def _upscale_once(
    calls: ApiCalls, images: Sequence[ImageFile], query: Mapping[str, str], folder: Path | None
) -> Steps[list[BatchItem]]:
    body, media_type = _encode_form(images)
    headers = {"Accept": MEDIA_TYPE, "Content-Type": media_type}
    yield Report(UpscaleProgress("uploading"))
    head: ResponseHead = yield calls.with_key(Send("POST", "/api/v1/upscale", query, headers, body, _SILENCE_S))
    if head.status != 200:
        yield from calls.fail(head)
    if head.media_type != MEDIA_TYPE:
        raise UnexpectedResponseError(f"{calls.url} is not a gateway of Serverless SuperRes: it sent no ZIP.")
    with tempfile.TemporaryFile(dir=folder) as spool:
        yield from _download(spool)
        return read_archive(spool, folder, head.headers.get("x-request-id", ""), len(images))


def _encode_form(images: Sequence[ImageFile]) -> tuple[bytes, str]:
    """Return a body of multipart/form-data with a field `image` for each image, and its media type."""
    names = [
        f"{image.stem}.image".encode(errors="replace").decode() for image in images
    ]  # a file's name may not be UTF-8
    files = [("image", (name, image.data)) for name, image in zip(names, images, strict=True)]
    form = httpx.Request("POST", "http://localhost", files=files)
    return form.read(), form.headers["Content-Type"]


def _download(spool: IO[bytes]) -> Steps[None]:
    """Write the rest of the response to a file."""
    n_bytes = 0
    while data := (yield from read_chunk()):
        n_bytes += len(data)
        if n_bytes > MAX_BYTES:
            raise UnexpectedResponseError(f"The response has more than {MAX_BYTES:,} bytes.")
        spool.write(data)
        yield Report(UpscaleProgress("downloading", n_bytes))
