"""A small file that people or clusters change while we run: read again when it changes, replaced only as a whole.

One that cannot be read or understood leaves what was read before in force, and is said in the log; one that could not
be read is tried again at each look. Works where a cluster mounts a Secret or ConfigMap, which swaps a link (`..data`)
and never writes into the file.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_FILE_BYTES = 4_194_304
SAY_AGAIN_S = 60.0
"""A file is looked at once a request: while it cannot be read, that is said this often and not each time."""
_MISSING = (0,)

_log = logging.getLogger(__name__)


class FileError(Exception):
    """The file cannot be read, understood or changed; the text says why and what to do."""


class ReloadingFile(Generic[T]):
    """A file of `what` ("keys"), whose bytes `parse` understands or refuses with ValueError. Safe in several threads.

    `error` is the FileError that its failures are raised as; `empty` is the content where there is no file.
    """

    def __init__(
        self,
        path: Path,
        what: str,
        parse: Callable[[bytes], T],
        *,
        empty: T,
        error: type[FileError],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._clock = clock
        self._what = what
        self._parse = parse
        self._empty = empty
        self._error = error
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        """Time, size and inode of what was read last; None before that."""
        self._content = empty
        self._silent_until = 0.0

    def current(self) -> T:
        """Return the content, read again when the file has another time, size or inode than when it was last read."""
        with self._lock:
            seen = self._look()
            if seen is None or seen != self._seen:
                try:
                    self._content = self.read()
                except FileError as error:
                    may_pass = isinstance(error.__cause__, OSError)  # too many open files; the file itself is as it was
                    self._complain(error, may_pass=may_pass)
                    if may_pass:
                        return self._content
                else:
                    if seen == _MISSING and self._seen not in (None, _MISSING):
                        _log.warning("The %s file %s is gone: there are no %s now.", self._what, self.path, self._what)
                self._seen, self._silent_until = seen, 0.0
            return self._content

    def _look(self) -> tuple[int, ...] | None:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return _MISSING
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino

    def _complain(self, error: FileError, *, may_pass: bool) -> None:
        now = self._clock()
        if not may_pass or now >= self._silent_until:
            self._silent_until = now + SAY_AGAIN_S
            _log.error("%s The %s read before stay in force.", error, self._what)

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
