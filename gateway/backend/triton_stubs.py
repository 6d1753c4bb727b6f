"""The Python stubs of a tritonserver: processes of their own, which can outlive it.

A stub whose server ends politely follows it within 1.5 s. One that was at work when its server was killed waits for
ever (seen on 2.51: `upscale_stream`, 42 MB each), and whoever is killed leaves its region in /dev/shm behind. So who
ends a server sweeps behind it, and a new one sweeps behind those whose gateway died before it could.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.backend.runtime_folder import FOLDER_PREFIX

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel has it
NOTE_SUFFIX = ".stubs"
_STUB = "triton_python_backend_stub"
_REGION_PREFIX = "triton_python_backend_shm_region_"


@dataclass(frozen=True)
class Stub:
    """A stub as its command line tells: stub, model.py, region, two sizes, its server's process id, ..."""

    pid: int
    folder: str
    region: str
    server: int


def children(pid: int) -> frozenset[int]:
    """Live children of a process: zombies are not among them."""
    return frozenset(
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if (fields := _fields(stat)) and int(fields[1]) == pid and fields[0] != "Z"
    )


def find_stubs() -> list[Stub]:
    """Every live stub on this machine whose server one of our gateways has started."""
    return list(_find_stubs())


def sweep(folder: str, *, grace_s: float, regions: frozenset[str] = frozenset()) -> None:
    """End the stubs of the server in `folder`, which has ended, after `grace_s` in which they may do so by themselves.

    Removes their shared memory and `regions`, that of stubs which died before.
    """
    _end(lambda stub: stub.folder == folder, grace_s, regions)


def note(path: Path, stubs: frozenset[Stub]) -> None:
    """Write down whose shared memory is whose, for `sweep_orphans` of whoever comes after us: all of it or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text("".join(f"{stub.server} {stub.region}\n" for stub in stubs))
    partial.replace(path)


def sweep_orphans(folder: Path) -> None:
    """End the stubs of servers that are gone with their gateways; remove the shared memory noted in `folder`."""
    regions: set[str] = set()
    for noted in folder.glob(f"*{NOTE_SUFFIX}"):
        try:
            lines = noted.read_text(errors="replace").splitlines()
        except OSError:  # its owner ended while we looked; no file of ours
            continue
        # A full disk or a hand may have left anything here: what is not a line of ours is passed over.
        pairs = [words for words in map(str.split, lines) if len(words) == 2 and words[0].isdecimal()]
        gone = {region for server, region in pairs if _is_gone(int(server))}
        regions |= {region for region in gone if _is_region(region)}
        if len(gone) == len(pairs):  # a live server's own is not ours to remove
            noted.unlink(missing_ok=True)
    _end(lambda stub: _is_gone(stub.server), 0.0, frozenset(regions))


def _is_region(name: str) -> bool:
    return name.startswith(_REGION_PREFIX) and "/" not in name


def _is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def _end(is_meant: Callable[[Stub], bool], grace_s: float, regions: frozenset[str]) -> None:
    meant = [stub for stub in find_stubs() if is_meant(stub)]
    regions |= {stub.region for stub in meant}
    deadline = time.monotonic() + grace_s
    while (left := [stub for stub in find_stubs() if is_meant(stub)]) and time.monotonic() < deadline:
        time.sleep(0.03)
    for stub in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # ended just now; another user's
            os.kill(stub.pid, signal.SIGKILL)
    for region in regions:
        with contextlib.suppress(PermissionError):
            (SHARED_MEMORY / region).unlink(missing_ok=True)


def _find_stubs() -> Iterator[Stub]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it ended while we looked
            continue
        program = Path(words[0])
        folder = program.parent.parent
        if program.name != _STUB or not folder.name.startswith(FOLDER_PREFIX) or len(words) < 6:
            continue
        if _is_region(words[2]) and words[5].isdecimal():
            yield Stub(int(path.parent.name), str(folder), words[2], int(words[5]))


def _fields(stat: Path) -> list[str]:
    try:
        return stat.read_text().rpartition(")")[2].split()[:2]
    except OSError:  # it ended while we looked
        return []
