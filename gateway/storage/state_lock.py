"""The lock of a state folder: one server at a time writes its log, usage and boot durations.

The kernel releases it with the last process that holds it, so it outlives neither SIGKILL nor a container. Commands
such as `superres keys` do not take it: the files they change have locks of their own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

LOCK_NAME = "serve.lock"
# Seconds to wait for a server whose first process is gone: its worker ends by itself.
WAIT_S = 10.0

_log = logging.getLogger(__name__)


class StateLockedError(Exception):
    """Another server uses the state folder. The message says which, and what to do."""


def lock_state_dir(folder: Path, *, wait_s: float = WAIT_S, sleep: Callable[[float], object] = time.sleep) -> int:
    """Lock a state folder for this process and those it forks; return the descriptor that holds the lock.

    Raises StateLockedError, and OSError if the folder cannot be written. A file system without locks is not locked.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        holder = _wait_for_lock(descriptor, wait_s, sleep)
    except BaseException:
        os.close(descriptor)
        raise
    if holder is not None:
        os.close(descriptor)
        raise StateLockedError(
            f"Another server ({holder or 'unknown process'}) uses the state folder {folder}. Stop it, or give "
            "this one a folder of its own: SUPERRES_STATE_DIR=/another/folder superres serve"
        )
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name in it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor


def _wait_for_lock(descriptor: int, wait_s: float, sleep: Callable[[float], object]) -> str | None:
    """Return None once the lock is taken, or the name of the process that keeps it."""
    while not _try_lock(descriptor):
        holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
        if wait_s <= 0 or not _is_gone(holder):
            return holder if holder.isprintable() else ""
        wait_s -= 0.1
        sleep(0.1)
    return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise
        _log.warning("the state folder is on a file system without locks: make sure that one server uses it")
    return True


def _is_gone(holder: str) -> bool:
    """Return whether the process that took the lock has ended, as far as this host can tell."""
    found = re.fullmatch(r"process (\d+) on (\S+)", holder)
    return bool(found) and found[2] == socket.gethostname() and not Path(f"/proc/{found[1]}").exists()  # type: ignore[index]
