"""The log file of one embedded Triton: opened for it, and read to say why the server did not start."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
from pathlib import Path
from typing import BinaryIO

from gateway.backend.triton_stubs import SHARED_MEMORY

# Bytes at the end of a log that are read.
MAX_READ_BYTES = 1_000_000
_MAX_LINE_CHARS = 300

_PORT_TAKEN = re.compile(r"failed to start (\w+) service: .*Socket '[^']*:(\d+)' already in use")
_SHARED_MEMORY_FULL = re.compile(r"Unable to initialize shared memory key|Failed to increase the shared memory pool")
# An error of Triton's own log: time, level, process, place and quoted text, in which a line break is a backslash and n.
_ERROR = re.compile(r'Z E \d+ [\w.]+:\d+\] "(?:ERROR: )?(.*?)(?:\\n.*)?"?$')
# Logged at every start on a machine without a GPU.
_HARMLESS = "CudaDriverHelper has not been initialized"

_log = logging.getLogger(__name__)


def open_log(path: Path) -> BinaryIO:
    """Return a new log file for a server. An older one is renamed to `.previous.log`.

    A disk that is full or read-only costs the log, not the server: its output then goes to /dev/null.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.replace(path.with_suffix(".previous.log"))
        return path.open("wb")
    except OSError as error:
        _log.warning("Triton runs without its log %s: %s", path, error.strerror or error)
        return Path(os.devnull).open("wb")


def read_log_tail(path: Path, lines: int = 15) -> str:
    """Return the errors in the log and its last lines, without Triton's tables."""
    text = _read_lines(path)
    if not text:
        return f"(no log in {path})"
    text = [line[:_MAX_LINE_CHARS] for line in text if line and line[0] not in "+|"]
    errors = [line for line in text[:-lines] if "Z E " in line or "Failed to" in line]
    return "\n".join(errors[-lines:] + text[-lines:] + [f"(whole log: {path})"])


def explain_failed_start(path: Path, status: int) -> str:
    """Return in one sentence why a server ended with `status` before it was ready, and what to do where that helps."""
    lines = _read_lines(path)
    text = "\n".join(lines)
    if taken := _PORT_TAKEN.search(text):
        return (
            f"Its {taken[1]} port {taken[2]} is in use by another program. "
            "The gateway starts Triton again on other ports."
        )
    if _SHARED_MEMORY_FULL.search(text):
        return (
            f"{SHARED_MEMORY} is full or too small ({_describe_free_bytes()}): each of Triton's Python processes needs "
            "1 MiB of it at the start, and large images more. Remove old files from it, or make it larger: docker run "
            "--shm-size=2g, or mount -o remount,size=2g /dev/shm."
        )
    if status < 0:
        cause = " The machine may be out of memory." if -status == signal.SIGKILL else ""
        return f"It was ended by signal {-status}.{cause}"
    return _find_last_error(lines)


def _find_last_error(lines: list[str]) -> str:
    matches = [match for match in map(_ERROR.search, lines) if match is not None]
    errors = [match[1] for match in matches if _HARMLESS not in match[1]]
    of_models = [error for error in errors if error.startswith("failed to load '")]
    others = [line for line in lines if line.startswith("error: ")]
    return (of_models or errors or others or ["Its log has no error."])[-1][:_MAX_LINE_CHARS]


def _describe_free_bytes() -> str:
    try:
        return f"{shutil.disk_usage(SHARED_MEMORY).free / 2**20:.1f} MiB free"
    except OSError as error:
        return error.strerror or str(error)


def _read_lines(path: Path) -> list[str]:
    """Return the lines at the end of the log; none if it cannot be read."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - MAX_READ_BYTES))
            return log.read(MAX_READ_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []
