"""The Python stubs of an embedded Triton: one process per Python model, which can outlive the server.

Stubs follow a server that ends normally within 1.5 s. A stub that was working when its server was killed waits without
end (seen on 2.51: `upscale_stream`, 42 MB), and every killed stub leaves its shared memory region in /dev/shm. So
`end_stubs` cleans up after each server, and `end_orphaned_stubs` after servers whose gateway was killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from gateway.backend.runtime_folder import FOLDER_PREFIX

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's path
RECORD_SUFFIX = ".stubs"
SERVER_NAME = "tritonserver"
# Seconds for which a stub must be stopped before its server counts as broken.
STOPPED_LIMIT_S = 2.0
_STUB_NAME = "triton_python_backend_stub"
_REGION_PREFIX = "triton_python_backend_shm_region_"
_POLL_INTERVAL_S = 0.03

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stub:
    """A stub, as its command line describes it: stub, model.py, region, two sizes, the server's process id, ..."""

    process: psutil.Process
    """The process, identified by its id and start time, so that a reused id is not taken for the stub."""
    folder: str
    """Runtime folder of the stub's server."""
    region: str
    """Name of the stub's shared memory region in /dev/shm."""
    server_pid: int
    model: str = ""
    """Name of the stub's model."""

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def is_alive(self) -> bool:
        """Return whether the process runs. A zombie does not run."""
        try:
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def is_stopped(self) -> bool:
        """Return whether a signal has stopped the process."""
        try:
            return self.process.status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    def cpu_s(self) -> float:
        """Return the processor time that the process has used, in seconds; 0 once it has ended."""
        try:
            times = self.process.cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return float(times.user + times.system)


class StoppedStubs:
    """Remembers which stubs of one server a signal has stopped, and since when. Not safe for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By process id: when the stub was first seen stopped, and its processor time then.
        self._seen: dict[int, tuple[float, float]] = {}

    def find(self, stubs: Collection[Stub]) -> list[Stub]:
        """Return the stubs that every call for STOPPED_LIMIT_S has seen stopped, and that have not run in between.

        A limiter such as cpulimit stops and continues a process many times a second.
        """
        now, before = self._clock(), self._seen
        self._seen = {}
        for stub in stubs:
            if stub.is_stopped():
                cpu_s = stub.cpu_s()
                since, cpu_s_then = before.get(stub.pid, (now, cpu_s))
                self._seen[stub.pid] = (since if cpu_s == cpu_s_then else now, cpu_s)
        return [stub for stub in stubs if now - self._seen.get(stub.pid, (now, 0.0))[0] >= STOPPED_LIMIT_S]


def find_stubs(server_pid: int | None = None) -> list[Stub]:
    """Return the live stubs of servers that our gateways started on this machine, or of one server."""
    stubs = [stub for pid in psutil.pids() if (stub := _read_stub(pid)) is not None]
    return [stub for stub in stubs if server_pid in (None, stub.server_pid)]


def end_stubs(folder: Path, *, grace_s: float, regions: Collection[str] = ()) -> None:
    """Kill the stubs of the ended server in `folder` that have not ended by themselves within `grace_s`.

    Removes their shared memory and `regions`, which belonged to stubs that died earlier.
    """
    _end(lambda stub: stub.folder == str(folder), grace_s, regions)


def record_regions(path: Path, stubs: Collection[Stub]) -> None:
    """Write each stub's server and region to a file for `end_orphaned_stubs`, which a later gateway calls.

    The file is replaced by an atomic rename, so a reader never sees a partial file. A full disk costs the record, not
    the boot: a warning is logged, and the regions stay in /dev/shm only if this gateway is killed.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text("".join(f"{stub.server_pid} {stub.region}\n" for stub in stubs))
        partial.replace(path)
    except OSError as error:
        _log.warning("Cannot record the shared memory of Triton in %s: %s", path, error.strerror or error)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def end_orphaned_stubs(record_folder: Path) -> None:
    """Kill the stubs of servers that are gone, and remove the shared memory recorded in `record_folder` for them."""
    regions: set[str] = set()
    for record in record_folder.glob(f"*{RECORD_SUFFIX}"):
        try:
            lines = record.read_text(errors="replace").splitlines()
        except OSError:  # its owner removed it meanwhile, or it is a folder
            continue
        # A full disk or an editor may have left anything here: lines of another form are skipped.
        pairs = [words for words in map(str.split, lines) if len(words) == 2 and words[0].isdecimal()]
        orphaned = {region for server_pid, region in pairs if not _is_server(int(server_pid))}
        regions |= {region for region in orphaned if _is_region(region)}
        if len(orphaned) == len(pairs):  # otherwise a live server still needs the file
            with contextlib.suppress(OSError):  # a disk that has become read-only
                record.unlink(missing_ok=True)
    _end(lambda stub: not _is_server(stub.server_pid), 0.0, regions)


def _read_stub(pid: int) -> Stub | None:
    """Return the stub that this process is, or None for any other process."""
    try:
        # Every process is looked at, at each boot, and psutil takes longer for it.
        if _STUB_NAME.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return None
        process = psutil.Process(pid)
        words = process.cmdline()  # read again, because another process may have this id by now
    except (OSError, psutil.Error):  # it has ended, or is a zombie
        return None
    if len(words) < 6 or not _is_region(words[2]) or not words[5].isdecimal():
        return None
    program = Path(words[0])
    folder = program.parent.parent
    if program.name != _STUB_NAME or not folder.name.startswith(FOLDER_PREFIX):
        return None
    return Stub(process, str(folder), words[2], int(words[5]), model=Path(words[1]).parent.parent.name)


def _is_region(name: str) -> bool:
    return name.startswith(_REGION_PREFIX) and "/" not in name


def _is_server(pid: int) -> bool:
    """Return whether a live tritonserver has this process id, which another program may have taken over."""
    try:
        process = psutil.Process(pid)
        return process.name() == SERVER_NAME and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end(is_selected: Callable[[Stub], bool], grace_s: float, regions: Collection[str]) -> None:
    stubs = remaining = [stub for stub in find_stubs() if is_selected(stub)]
    deadline = time.monotonic() + grace_s
    # Not psutil.wait_procs: it counts a zombie as running until its parent, which we are not, has collected it.
    while remaining and time.monotonic() < deadline:
        time.sleep(_POLL_INTERVAL_S)
        remaining = [stub for stub in find_stubs() if is_selected(stub)]
    for stub in remaining:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # ended just now; another user's
            stub.process.kill()
    for region in {*regions, *(stub.region for stub in stubs)}:
        with contextlib.suppress(PermissionError):
            (SHARED_MEMORY / region).unlink(missing_ok=True)
