"""Writes the results of several images as one ZIP, entry by entry: a result is in memory only until it is sent.

Images are compressed already, so they are stored. Each entry is complete before it leaves, so its header has the size
and the checksum, and programs that read a ZIP from a stream can use it.
"""

from __future__ import annotations

import json
import time
import zipfile
from io import BytesIO
from typing import IO, Any, cast

from gateway.jobs.filenames import fit_name

MEDIA_TYPE = "application/zip"
REPORT_NAME = "report.json"
"""The last entry: what became of each image."""


class ArchiveWriter:
    """Writes a ZIP of stored entries. Each method returns the bytes that come next."""

    def __init__(self) -> None:
        self._spool = _Spool()
        # zipfile calls write, tell, seek and flush only.
        self._zip = zipfile.ZipFile(cast("IO[bytes]", self._spool), "w", zipfile.ZIP_STORED)
        self._names = {REPORT_NAME.casefold()}
        self._time = time.gmtime()[:6]

    def add(self, filename: str, data: bytes) -> tuple[str, bytes]:
        """Add a file and return its name in the archive, which no other entry has, and the bytes."""
        name = self._unused_name(filename)
        return name, self._write(name, data)

    def finish(self, report: dict[str, Any]) -> bytes:
        """Add the report and return the rest of the archive."""
        data = self._write(REPORT_NAME, json.dumps(report, indent=1).encode())
        self._zip.close()
        return data + self._spool.take()

    def _write(self, name: str, data: bytes) -> bytes:
        self._zip.writestr(zipfile.ZipInfo(name, self._time), data)
        return self._spool.take()

    def _unused_name(self, filename: str) -> str:
        """Return the name, numbered from 2 if there is one like it; systems that ignore case are many."""
        stem, dot, extension = filename.rpartition(".")
        name, number = filename, 1
        while name.casefold() in self._names:
            number += 1
            name = fit_name(stem, f"-{number}{dot}{extension}")
        self._names.add(name.casefold())
        return name


class _Spool:
    """A file for zipfile that hands over what was written; only what was not handed over can be changed."""

    def __init__(self) -> None:
        self._base = 0
        self._buffer = BytesIO()

    def take(self) -> bytes:
        data = self._buffer.getvalue()
        self._base += len(data)
        self._buffer = BytesIO()
        return data

    def write(self, data: bytes) -> int:
        return self._buffer.write(data)

    def tell(self) -> int:
        return self._base + self._buffer.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._base + self._buffer.seek(offset - self._base if whence == 0 else offset, whence)

    def seekable(self) -> bool:
        return True

    def flush(self) -> None:
        """Do nothing: there is nothing below."""
