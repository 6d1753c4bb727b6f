"""The ZIP with the results of several images: its report, and what became of each image."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from superres.client.errors import ConnectionFailedError, ProblemError, UnexpectedResponseError, problem_from
from superres.client.images import UNNAMED
from superres.client.result import FileSink, MemorySink, UpscaleResult, read_facts

MEDIA_TYPE = "application/zip"

MAX_BYTES = 16 << 30
"""Maximum size of a ZIP."""

_MAX_REPORT_BYTES = 4 << 20
_REPORT = "report.json"


@dataclass(frozen=True)
class BatchItem:
    """What became of one image: either `result` or `problem` is set."""

    upload: str
    """Name of the image without its extension, as the service has it."""
    result: UpscaleResult | None
    problem: ProblemError | None
    """Why it was rejected or failed."""


def read_archive(file: IO[bytes], folder: Path | None, request_id: str, count: int | None = None) -> list[BatchItem]:
    """Return what became of each image of a ZIP, with the results in memory or in the folder.

    Raises UnexpectedResponseError for an invalid report or, with `count`, one of another number of images;
    ConnectionFailedError for a ZIP that is damaged; and OSError for the folder.
    """
    with _open_archive(file) as archive:
        return _unpack(archive, count, folder, request_id)


@contextmanager
def _open_archive(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """Open a ZIP. One that is damaged or not complete counts as a connection that broke."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
        raise ConnectionFailedError("The connection was closed before the results were complete.") from error


def _unpack(archive: zipfile.ZipFile, count: int | None, folder: Path | None, request_id: str) -> list[BatchItem]:
    """Return what the report says of each image, with the results that the archive has."""
    members = _read_report(archive)
    entries = members.get("images")
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise UnexpectedResponseError("The service sent a report that this version does not understand.")
    if count is not None and len(entries) != count:
        raise UnexpectedResponseError(f"The service sent a report of {len(entries)} images; {count} were sent.")
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
