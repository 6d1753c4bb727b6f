"""The handler of the log file: follows renames, rotates by size, and loses lines rather than requests on a full disk.

Several processes write to the file, the gateway's own two at least. Each line is one `write` in append mode, so lines
never mix, and after `truncate` (logrotate's copytruncate) the next line is at the start of the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Seconds between two warnings on standard error, so that a disk which is full every other moment does not flood it.
WARN_AGAIN_S = 60.0
# No space left, in its three forms: of the disk, of the user's quota, of the process (ulimit -f).
FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_MODE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class LogFileHandler(logging.Handler):
    """Appends formatted records to a file. Safe for several threads and processes.

    Before each line it looks whether the path still names the open file. A log that was renamed or deleted, by
    logrotate or by another process, is thus created again without a signal.
    """

    def __init__(self, path: Path, *, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Rotate a file of `max_bytes` to one older file, `.1`; 0: never. Raises OSError, but not for a full disk."""
        super().__init__()
        self.path = path
        self._older = path.with_name(path.name + ".1")
        self._max_bytes = max_bytes
        self._clock = clock
        self._descriptor: int | None = None
        # Lines that could not be written since the last one that was, and whether that one was cut in the middle.
        self._lost = 0
        self._is_torn = False
        self._next_warning = 0.0
        self._last_error = ""
        try:
            self._open()
        except OSError as error:
            if error.errno not in FULL_ERRORS:
                raise
            self._warn(error)

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line. If it cannot be written, it is lost and standard error says so, at most once per minute."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a bug of the caller, which logging reports
            self.handleError(record)
            return
        try:
            self._append(line)
        except OSError as error:
            self._lost += 1
            self._warn(error)

    def close(self) -> None:
        """Close the file."""
        with self.lock or contextlib.nullcontext():
            self._close_file()
        super().close()

    def _append(self, line: str) -> None:
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        descriptor = self._current_file(len(data))
        if self._lost:
            data = self._describe_loss() + data
        if self._is_torn:
            data = b"\n" + data
        written = os.write(descriptor, data)
        if written < len(data):  # the disk is full now
            self._is_torn = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._lost, self._is_torn = 0, False

    def _describe_loss(self) -> bytes:
        lines = "1 line was" if self._lost == 1 else f"{self._lost:,} lines were"
        record = logging.LogRecord(
            __name__, logging.WARNING, __file__, 0, "%s lost here: %s", (lines, self._last_error), None
        )
        return f"{self.format(record)}\n".encode("utf-8", "backslashreplace")

    def _current_file(self, n_bytes: int) -> int:
        """Return the descriptor of the file at the path, opened again if that is another one, rotated if too large."""
        descriptor = self._follow()
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size and 0 < self._max_bytes < status.st_size + n_bytes:
            with contextlib.suppress(OSError):  # such as a folder that is not writable: the file grows on
                self._rotate(n_bytes)
            return self._follow()
        return descriptor

    def _rotate(self, n_bytes: int) -> None:
        """Rename the file, unless another process does or did. Raises OSError."""
        lock = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)  # forked processes share the lock of their descriptor
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(lock)
            if os.path.samestat(status, self.path.stat()) and status.st_size + n_bytes > self._max_bytes:
                self.path.replace(self._older)
        finally:
            os.close(lock)

    def _follow(self) -> int:
        """Return a descriptor of the file that the path names now."""
        if self._descriptor is not None:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(self.path.stat(), os.fstat(self._descriptor)):
                    return self._descriptor
            self._close_file()
        return self._open()

    def _open(self) -> int:
        self._descriptor = os.open(self.path, _MODE, 0o666)
        self._is_torn = False
        return self._descriptor

    def _close_file(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _warn(self, error: OSError) -> None:
        self._last_error = error.strerror or str(error)
        if self._clock() >= self._next_warning:
            self._next_warning = self._clock() + WARN_AGAIN_S
            with contextlib.suppress(OSError, ValueError):  # standard error is closed, or on the same full disk
                print(  # noqa: T201 - the log itself cannot say it
                    f"superres: The log {self.path} cannot be written: {self._last_error}. Lines are lost until it "
                    "can; images are upscaled as before.",
                    file=sys.stderr,
                    flush=True,
                )


class StandardErrorHandler(logging.StreamHandler):  # type: ignore[type-arg]  # the stream is sys.stderr
    """Writes records to standard error. One that cannot be written is lost: the terminal or the pipe may be gone."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Report bugs of the caller, but not an unwritable stream."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
