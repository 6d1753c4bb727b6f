"""A small file that people or clusters change while we run: read again when it changes, replaced only as a whole.

One that cannot be read or understood leaves what was read before in force, and is said in the log once. Works where a
cluster mounts a Secret or ConfigMap, which swaps a link (`..data`) and never writes into the file.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_FILE_BYTES = 4_194_304

_log = logging.getLogger(__name__)


class FileError(Exception):
    """The file cannot be read, understood or changed; the text says why and what to do."""


class WatchedFile(Generic[T]):
    """A file of `what` ("keys"), whose bytes `parse` understands or refuses with ValueError. Safe in several threads.

    `error` is the FileError that its failures are raised as; `empty` is the content where there is no file.
    """

    def __init__(self, path: Path, what: str, parse: Callable[[bytes], T], *, empty: T, error: type[FileError]) -> None:
        self.path = path
        self._what = what
        self._parse = parse
        self._empty = empty
        self._error = error
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._content = empty

    def current(self) -> T:
        """Return the content, read again when the file has another time, size or inode than when it was last read."""
        with self._lock:
            try:
                stat = self.path.stat()
                seen: tuple[int, ...] = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
            except OSError:
                seen = (0,)
            if seen != self._seen:
                self._seen = seen
                try:
                    self._content = self.read()
                except FileError as error:
                    _log.error("%s The %s read before stay in force.", error, self._what)
            return self._content

    def read(self) -> T:
        """Return the content as the file has it now; `empty` when there is no file."""
        content = self.read_bytes()
        return self._empty if content is None else self._understand(content)

    def read_bytes(self) -> bytes | None:
        """Return the file's bytes; None when there is no file."""
        try:
            with self.path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(f"The {self._what} file {self.path} cannot be read: {error.strerror}.") from error
        if len(content) > MAX_FILE_BYTES:
            raise self._error(
                f"The {self._what} file {self.path} has more than {MAX_FILE_BYTES:,} bytes, "
                f"which is no {self._what} file."
            )
        return content

    def replace(self, content: bytes) -> None:
        """Replace the file as a whole: a reader sees the old one or the new one."""
        self._understand(content)
        try:
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")  # mode 0600
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(self.path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise self._error(f"The {self._what} file {self.path} cannot be written: {error.strerror}.") from error

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep other processes from changing the file between our reading and our writing it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.path.with_name(self.path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise self._error(f"The {self._what} in {self.path.parent} cannot be changed: {error.strerror}.") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _understand(self, content: bytes) -> T:
        try:
            return self._parse(content)
        except (ValueError, KeyError, TypeError) as error:
            raise self._error(f"The {self._what} file {self.path} is damaged: {error}.") from error
