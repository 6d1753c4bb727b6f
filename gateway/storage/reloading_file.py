"""A small file that people or clusters change while the gateway runs. It is read again whenever it changes.

If the file cannot be read or is invalid, the content loaded before stays in force and the log says so; a file that
could not be read is tried again at each access. Writing replaces the whole file. This works where a cluster mounts a
Secret or ConfigMap, which swaps a symbolic link (`..data`) and never writes into the file.
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

# Far more than keys or blocked networks need. A larger file is a mistake and must not fill the memory.
_MAX_FILE_BYTES = 4_194_304

# Minimum time between two log lines about a file that cannot be read: the file is accessed once per request.
LOG_AGAIN_S = 60.0

_MISSING = (0,)

_log = logging.getLogger(__name__)


class FileError(Exception):
    """The file cannot be read, parsed or changed. The message says why and what to do."""


class ReloadingFile(Generic[T]):
    """A file of `noun` ("keys"), parsed by `parse`, which raises ValueError for invalid content.

    `empty` is the content if the file does not exist; `error` is the subclass of FileError to raise. Safe for several
    threads.
    """

    def __init__(
        self,
        path: Path,
        noun: str,
        parse: Callable[[bytes], T],
        *,
        empty: T,
        error: type[FileError],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._clock = clock
        self._noun = noun
        self._parse = parse
        self._empty = empty
        self._error = error
        self._lock = threading.Lock()
        # Times, size and inode of the file that was loaded last; None before the first load.
        self._loaded_stat: tuple[int, ...] | None = None
        self._content = empty
        self._next_log = 0.0

    def current(self) -> T:
        """Return the content, loaded again if the file's times, size or inode have changed."""
        with self._lock:
            stat = self._stat()
            if stat is None or stat != self._loaded_stat:
                try:
                    self._content = self.read()
                except FileError as error:
                    is_temporary = isinstance(error.__cause__, OSError)  # such as too many open files
                    self._log_error(error, is_temporary=is_temporary)
                    if is_temporary:
                        return self._content
                else:
                    if stat == _MISSING and self._loaded_stat not in (None, _MISSING):
                        _log.warning(
                            "The %s file %s was deleted. No %s are in force.", self._noun, self.path, self._noun
                        )
                self._loaded_stat, self._next_log = stat, 0.0
            return self._content

    def _stat(self) -> tuple[int, ...] | None:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return _MISSING
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino

    def _log_error(self, error: FileError, *, is_temporary: bool) -> None:
        now = self._clock()
        if not is_temporary or now >= self._next_log:
            self._next_log = now + LOG_AGAIN_S
            _log.error("%s The %s loaded before stay in force.", error, self._noun)

    def read(self) -> T:
        """Return the content as the file has it now; `empty` if the file does not exist."""
        content = self.read_bytes()
        return self._empty if content is None else self._parse_or_raise(content)

    def read_bytes(self) -> bytes | None:
        """Return the file's bytes, or None if the file does not exist."""
        try:
            with self.path.open("rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(f"The {self._noun} file {self.path} cannot be read: {error.strerror}.") from error
        if len(content) > _MAX_FILE_BYTES:
            raise self._error(f"The {self._noun} file {self.path} exceeds the maximum of {_MAX_FILE_BYTES:,} bytes.")
        return content

    def replace(self, content: bytes) -> None:
        """Replace the file atomically: a reader sees either the old or the new content."""
        self._parse_or_raise(content)
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
            raise self._error(f"The {self._noun} file {self.path} cannot be written: {error.strerror}.") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the file against other processes, from reading it to replacing it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.path.with_name(self.path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise self._error(
                f"The {self._noun} in {self.path.parent} cannot be changed: {error.strerror}. "
                "Set SUPERRES_STATE_DIR to a folder that this user can write."
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _parse_or_raise(self, content: bytes) -> T:
        try:
            return self._parse(content)
        except (ValueError, KeyError, TypeError) as error:
            raise self._error(f"The {self._noun} file {self.path} is invalid: {error}.") from error
