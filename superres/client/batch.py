"""Several images in one request: the multipart body, and the ZIP of their results with its report."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from superres.client.calls import ApiCalls
from superres.client.effects import Report, ResponseHead, Send, Steps, read_chunk
from superres.client.errors import ConnectionFailedError, ProblemError, UnexpectedResponseError, problem_from
from superres.client.images import UNNAMED, ImageFile, ImageSource, read_image
from superres.client.progress import UpscaleProgress
from superres.client.result import FileSink, MemorySink, UpscaleResult, read_facts

# Nothing is sent while an image is upscaled, and each may take as long as the service permits (`deadline_s`).
_SILENCE_S = 900.0
_MAX_ARCHIVE_BYTES = 16 << 30
_MAX_REPORT_BYTES = 4 << 20
_REPORT = "report.json"
_ZIP = "application/zip"


@dataclass(frozen=True)
class BatchItem:
    """What became of one image: either `result` or `problem` is set."""

    upload: str
    """Name of the image without its extension, as the service has it."""
    result: UpscaleResult | None
    problem: ProblemError | None
    """Why it was rejected or failed."""


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


def _upscale_once(
    calls: ApiCalls, images: Sequence[ImageFile], query: Mapping[str, str], folder: Path | None
) -> Steps[list[BatchItem]]:
    body, media_type = _encode_form(images)
    headers = {"Accept": _ZIP, "Content-Type": media_type}
    yield Report(UpscaleProgress("uploading"))
    head: ResponseHead = yield calls.with_key(Send("POST", "/api/v1/upscale", query, headers, body, _SILENCE_S))
    if head.status != 200:
        yield from calls.fail(head)
    if head.media_type != _ZIP:
        raise UnexpectedResponseError(f"{calls.url} is not a gateway of Serverless SuperRes: it sent no ZIP.")
    with tempfile.TemporaryFile() as spool:
        yield from _download(spool)
        with _open_archive(spool) as archive:
            return _unpack(archive, len(images), folder, head.headers.get("x-request-id", ""))


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
        if n_bytes > _MAX_ARCHIVE_BYTES:
            raise UnexpectedResponseError(f"The response has more than {_MAX_ARCHIVE_BYTES:,} bytes.")
        spool.write(data)
        yield Report(UpscaleProgress("downloading", n_bytes))


@contextmanager
def _open_archive(spool: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """Open a ZIP. One that is damaged or not complete counts as a connection that broke."""
    try:
        with zipfile.ZipFile(spool) as archive:
            yield archive
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
        raise ConnectionFailedError("The connection was closed before the results were complete.") from error


def _unpack(archive: zipfile.ZipFile, count: int, folder: Path | None, request_id: str) -> list[BatchItem]:
    """Return what the report says of each image, with the results that the archive has."""
    members = _read_report(archive)
    entries = members.get("images")
    if not isinstance(entries, list) or len(entries) != count or not all(isinstance(each, dict) for each in entries):
        raise UnexpectedResponseError("The service sent a report that this version does not understand.")
    return [_unpack_entry(archive, entry, folder, request_id) for entry in entries]


def _read_report(archive: zipfile.ZipFile) -> dict[str, Any]:
    if archive.getinfo(_REPORT).file_size > _MAX_REPORT_BYTES:
        raise UnexpectedResponseError(f"The report of the service has more than {_MAX_REPORT_BYTES:,} bytes.")
    try:
        members = json.loads(archive.read(_REPORT))
    except ValueError:
        members = None
    return members if isinstance(members, dict) else {}


def _unpack_entry(
    archive: zipfile.ZipFile, entry: Mapping[str, Any], folder: Path | None, request_id: str
) -> BatchItem:
    name, upload = entry.get("file"), str(entry.get("upload"))
    if not isinstance(name, str):
        return BatchItem(upload, None, problem_from(entry.get("problem") or {}))
    # The name in the archive, which no other result has. That of an image without a name stays.
    facts = read_facts({**entry, "filename": name}, UNNAMED, request_id)
    if archive.getinfo(name).file_size != facts.size_bytes:
        raise UnexpectedResponseError(f"The service sent a result of another size than {facts.size_bytes:,} bytes.")
    sink = MemorySink() if folder is None else FileSink(folder / facts.filename)
    with sink.open(facts) as target, archive.open(name) as source:
        while data := source.read(1 << 20):
            target.write(data)
    return BatchItem(upload, sink.result(facts), None)
